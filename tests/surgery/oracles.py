"""The papers' rules written down literally, in float64 on `[task, D]` gradients.

Nothing here looks at a Gram matrix unless its paper does. Methods with an inner problem
go through slow SciPy solvers. A task whose gradient is zero is absent: every method
sees the others only.
"""

import numpy as np
from scipy import optimize

# --- projections ----------------------------------------------------------------------


def pcgrad(grads, orders, *, visit_self=False):
    """Algorithm 1 of Yu et al. 2020; task i meets `orders[i]` in turn."""
    grads = np.asarray(grads, np.float64)
    projected = grads.copy()
    for i, order in enumerate(orders):
        for j in order:
            if (i == j and not visit_self) or not grads[j].any():
                continue
            dot = projected[i] @ grads[j]
            if dot < 0:
                projected[i] -= dot / (grads[j] @ grads[j]) * grads[j]
    return projected.sum(axis=0)


def pcgrad_of_two(first, second):
    """Equation 7: no order enters."""
    if not first @ second < 0:
        return first + second
    length = np.linalg.norm
    cosine = first @ second / (length(first) * length(second))
    ratio = length(first) / length(second)
    return (1 - cosine / ratio) * first + (1 - cosine * ratio) * second


def gradvac(grads, orders, target, ids, decay):
    """Algorithm 1 of Wang et al. 2021: the update and the new `[task, task]` goals."""
    grads, target = np.asarray(grads, np.float64), np.array(target, np.float64)
    moved = grads.copy()
    length = np.linalg.norm
    for i, order in enumerate(orders):
        for j in order:
            if i == j or not grads[j].any() or not grads[i].any():
                continue
            cosine = moved[i] @ grads[j] / (length(moved[i]) * length(grads[j]))
            phi = target[ids[i], ids[j]]
            if cosine < phi:
                numerator = phi * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - phi**2)
                scale = length(moved[i]) / (length(grads[j]) * np.sqrt(1 - phi**2))
                moved[i] += scale * numerator * grads[j]
            target[ids[i], ids[j]] = (1 - decay) * phi + decay * cosine
    return moved.sum(axis=0), target


# --- inner problems -------------------------------------------------------------------


def on_live(solve, grads, *args, **kwargs):
    """Weights of `solve` for the tasks with a gradient, 0 for the others."""
    grads = np.asarray(grads, np.float64)
    live = grads.any(axis=1)
    weights = np.zeros(len(grads))
    if live.any():
        weights[live] = solve(grads[live], *args, **kwargs)
    return weights


def mgda(grads):
    """The shortest vector of the convex hull.

    `min |w' g|^2 + (sum w - 1)^2` over w >= 0 has it as its direction.
    """
    scale = np.abs(grads).max()
    system = np.vstack([grads.T / scale, np.ones(len(grads))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    weights, _ = optimize.nnls(system, target, maxiter=1000)
    return weights / weights.sum()


def project_onto_cone(grads, vector):
    """The multipliers z >= 0 with `vector + z' g` the nearest that hurts nobody."""
    # columns of length 1: a badly scaled task is as exact as any other
    lengths = np.linalg.norm(grads, axis=1)
    scale = np.linalg.norm(vector) or 1.0
    z, _ = optimize.nnls((grads / lengths[:, None]).T, -vector / scale, maxiter=1000)
    return z * scale / lengths


def dualproj(grads):
    return 1.0 + project_onto_cone(grads, grads.sum(axis=0))


def upgrad(grads):
    return 1.0 + sum(project_onto_cone(grads, one) for one in grads)


def cagrad_objective(weights, grads, c):
    mean, mixed = grads.mean(axis=0), weights @ grads
    return mixed @ mean + c * np.linalg.norm(mean) * np.linalg.norm(mixed)


def _simplex(count):
    return {
        "bounds": [(0.0, 1.0)] * count,
        "constraints": {"type": "eq", "fun": lambda w: w.sum() - 1.0},
        "method": "SLSQP",
        "options": {"ftol": 1e-15, "maxiter": 500},
    }


def cagrad_dual(grads, c):
    """`argmin_w g_w . g_0 + c |g_0| |g_w|` over the simplex."""
    count, scale = len(grads), np.linalg.norm(grads, axis=1).mean()
    starts = [*np.eye(count) * 0.9 + 0.1 / count, np.full(count, 1 / count)]
    objective = lambda w: cagrad_objective(w, grads / scale, c)
    found = [optimize.minimize(objective, start, **_simplex(count)) for start in starts]
    return min(found, key=lambda result: result.fun).x


def cagrad(grads, c, *, rescale):
    count = len(grads)
    mixing = cagrad_dual(grads, c)
    mean, mixed = grads.mean(axis=0), mixing @ grads
    factor = c * np.linalg.norm(mean) / np.linalg.norm(mixed)
    weights = 1 / count + factor * mixing
    return weights / (1 + c**2) if rescale else weights


def cagrad_primal(grads, c):
    """`max_d min_t <g_t, d>` with `|d - g_0| <= c |g_0|`: the value that d reaches."""
    scale = np.linalg.norm(grads, axis=1).mean()
    grads = grads / scale
    mean = grads.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    start = np.append(mean, (grads @ mean).min())
    result = optimize.minimize(
        lambda x: -x[-1],
        start,
        jac=lambda x: np.append(np.zeros(len(mean)), -1.0),
        constraints=[
            {"type": "ineq", "fun": lambda x: grads @ x[:-1] - x[-1]},
            {"type": "ineq", "fun": lambda x: radius**2 - np.sum((x[:-1] - mean) ** 2)},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return result.x[-1] * scale**2


def fair(grads, alpha):
    """The w > 0 with `G w = w^(-1/alpha)`, gradients of mean squared length 1."""
    gram = grads @ grads.T
    gram = gram / np.diagonal(gram).mean()
    # in v = n w, with every gradient of length 1: the solver then sees no bad scales
    lengths = np.sqrt(np.diagonal(gram))
    cosines = gram / np.outer(lengths, lengths)
    power = -1.0 / alpha

    def condition(log_v):
        v = np.exp(log_v)
        return np.log(np.maximum(lengths * (cosines @ v), 1e-300)) - power * (
            log_v - np.log(lengths)
        )

    def potential(v):
        w = v / lengths
        barrier = np.log(w) if alpha == 1 else w ** (1 + power) / (1 + power)
        return 0.5 * v @ cosines @ v - barrier.sum()

    def slope(v):
        return cosines @ v - (v / lengths) ** power / lengths

    bounds = [(1e-9, None)] * len(grads)
    start = lengths ** (1 - 2 / (1 + 1 / alpha)) + 0.1
    rough = optimize.minimize(
        potential, start, jac=slope, bounds=bounds, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-12},
    ).x  # fmt: skip
    polished = optimize.root(condition, np.log(rough), tol=1e-13).x
    if np.abs(condition(polished)).max() > 1e-8:
        raise ArithmeticError("the reference did not converge")
    return np.exp(polished) / lengths


def nash_mtl(grads):
    """`G a = 1 / a` is alpha = 1."""
    return fair(grads, 1.0)


def imtl_g(grads):
    """The authors' closed form: equal projections onto all unit gradients."""
    if len(grads) == 1:
        return np.ones(1)
    units = grads / np.linalg.norm(grads, axis=1, keepdims=True)
    differences = grads[0] - grads[1:]
    unit_differences = units[0] - units[1:]
    others = np.linalg.solve(
        unit_differences @ differences.T, unit_differences @ grads[0]
    )
    return np.append(1 - others.sum(), others)


def imtl_g_singular(grads):
    """`K^+ 1 / n` over its sum, with the rank of the unit gradients themselves."""
    norms = np.linalg.norm(grads, axis=1)
    inverse = np.linalg.pinv(grads / norms[:, None])
    weights = (inverse.T @ inverse).sum(axis=1) / norms
    return weights / weights.sum()


def aligned_mtl(grads):
    """The mean after all nonzero singular values became the smallest of them."""
    left, values, _ = np.linalg.svd(grads, full_matrices=False)
    rank = np.sum(values > 1e-10 * values[0])
    left = left[:, :rank]
    return left @ (values[rank - 1] / values[:rank] * left.mean(axis=0))


# --- losses ---------------------------------------------------------------------------


class Kendall:
    def __init__(self, num_tasks, learning_rate, start):
        self.log_variance = np.full(num_tasks, start, np.float64)
        self.learning_rate = learning_rate

    def __call__(self, losses, ids):
        """The gradient of `sum L exp(-s) / 2 + s / 2` in each L, then a step in s."""
        weights = np.exp(-self.log_variance[ids]) / 2
        for loss, i in zip(losses, ids, strict=True):
            slope = -loss * np.exp(-self.log_variance[i]) / 2 + 0.5
            self.log_variance[i] -= self.learning_rate * slope
        return weights


class DynamicWeightAverage:
    def __init__(self, num_tasks, steps_per_epoch, temperature):
        self.history = [[[] for _ in range(num_tasks)]]
        self.steps_per_epoch, self.temperature = steps_per_epoch, temperature
        self.step = 0

    def __call__(self, losses, ids):
        if self.step and self.step % self.steps_per_epoch == 0:
            self.history.append([[] for _ in self.history[0]])
        self.step += 1
        weights = np.ones(len(ids))
        if len(self.history) > 2:
            before, last = self.history[-3], self.history[-2]
            ratios = np.array(
                [
                    np.mean(last[i]) / np.mean(before[i])
                    if last[i] and before[i]
                    else 1
                    for i in ids
                ]
            )
            shares = np.exp(ratios / self.temperature)
            weights = len(ids) * shares / shares.sum()
        for loss, i in zip(losses, ids, strict=True):
            self.history[-1][i].append(loss)
        return weights


class GroupDRO:
    def __init__(self, num_tasks, step_size):
        self.q = np.full(num_tasks, 1 / num_tasks)
        self.step_size = step_size

    def __call__(self, losses, ids):
        group_losses, counts = np.zeros_like(self.q), np.zeros_like(self.q)
        for g in range(len(self.q)):
            mine = [loss for loss, i in zip(losses, ids, strict=True) if i == g]
            counts[g] = len(mine)
            group_losses[g] = np.mean(mine) if mine else 0.0
        self.q = self.q * np.exp(self.step_size * group_losses)
        self.q = self.q / self.q.sum()
        # loss = sum_g q_g mean(losses of g)
        return np.array([self.q[i] / counts[i] for i in ids])


def q_ffl(losses, q):
    """The slope of `1/T sum L^(q + 1) / (q + 1)` in each loss."""
    return losses**q / len(losses)


def up_weighting(ids, sizes):
    """Every example weighs N / (G n_g); the loss is the mean over the batch."""
    return np.array([sum(sizes) / (len(sizes) * sizes[i]) for i in ids]) / len(ids)


class GradNorm:
    """Plain gradient descent on the paper's L1 loss, renormalised after each step."""

    def __init__(self, num_tasks, alpha, learning_rate):
        self.weights = np.ones(num_tasks)
        self.first = np.full(num_tasks, np.nan)
        self.alpha, self.learning_rate = alpha, learning_rate

    def __call__(self, norms, losses, ids):
        used = self.weights[ids].copy()
        for loss, i in zip(losses, ids, strict=True):
            if np.isnan(self.first[i]):
                self.first[i] = loss
        progress = losses / self.first[ids]
        rate = progress / progress.mean()
        target = (used * norms).mean() * rate**self.alpha
        slope = norms * np.sign(used * norms - target)
        self.weights[ids] = used - self.learning_rate * slope
        self.weights = self.weights / self.weights.mean()
        return used


class FAMO:
    """The authors' code: torch's Adam (coupled weight decay) on the logits."""

    def __init__(self, num_tasks, learning_rate, decay):
        self.logits = np.zeros(num_tasks)
        self.learning_rate, self.decay = learning_rate, decay
        self.first, self.second = np.zeros(num_tasks), np.zeros(num_tasks)
        self.step = 0

    def attention(self, ids):
        z = np.exp(self.logits[ids])
        return z / z.sum()

    def __call__(self, losses, ids):
        weights = self.attention(ids) / losses
        return weights / weights.sum()

    def observe(self, before, after, ids):
        z = self.attention(ids)
        jacobian = np.diag(z) - np.outer(z, z)
        gradient = np.zeros_like(self.logits)
        gradient[ids] = jacobian @ (np.log(before) - np.log(after))
        gradient += self.decay * self.logits
        self.step += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.step)
        second = self.second / (1 - 0.999**self.step)
        self.logits = self.logits - self.learning_rate * first / (
            np.sqrt(second) + 1e-8
        )
