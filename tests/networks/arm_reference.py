"""The networks of ARM once more, in plain JAX and as PyTorch modules in float64.

Both read the library's tree of parameters and have nothing else of it: convolutions are
`lax.conv_general_dilated` and `torch.nn.Conv2d`, batch normalisation is the formula and
`torch.nn.BatchNorm2d`. A tree with linear layers is the classifier, whose last two
blocks are VALID and pooled; one without is the context network.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

EPSILON = 1e-5


def close(got, want, rtol=1e-4):
    """Whether two trees agree, up to `rtol` of the largest number of all leaves."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    scale = max(np.abs(leaf).max() for leaf in map(np.asarray, jax.tree.leaves(want)))
    for (path, a), b in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(
            a, b, rtol=rtol, atol=rtol * scale, err_msg=jax.tree_util.keystr(path)
        )


def shaken(tree, seed, size=0.3):
    """A tree near another one, so that no scale is 1 and no bias 0 by accident."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [
        leaf + size * jax.random.uniform(key, leaf.shape, minval=-1.0)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def blocks(params):
    return sorted(name for name in params if name.startswith("_Block_"))


# --- plain JAX ------------------------------------------------------------------------


def conv(x, layer, padding):
    y = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + jnp.broadcast_to(layer["bias"], y.shape)


def moments(x):
    """Mean and biased variance of every channel."""
    mean = x.mean((0, 1, 2), keepdims=True)
    return mean, ((x - mean) ** 2).mean((0, 1, 2), keepdims=True)


def block(x, layers, padding, stored):
    """Convolution, batch normalisation, relu; also the moments before normalising."""
    x = conv(x, layers["Conv5x5_0"], padding)
    found = moments(x)
    if stored is None:
        mean, var = found
    else:
        norm = stored["BatchNorm_0"]
        mean, var = (norm[name].reshape(1, 1, 1, -1) for name in ("mean", "var"))
    x = (x - mean) / jnp.sqrt(var + EPSILON)
    scale, bias = (layers["BatchNorm_0"][k].reshape(1, 1, 1, -1) for k in SCALE_BIAS)
    seen = {"mean": found[0].ravel(), "var": found[1].ravel()}
    return jax.nn.relu(scale * x + bias), {"BatchNorm_0": seen}


SCALE_BIAS = ("scale", "bias")


def dense(x, layer):
    y = x @ layer["kernel"]
    return y + jnp.broadcast_to(layer["bias"], y.shape)


def plain_classifier(params, x, stored=None):
    """`(logits, features, moments)`, with the batch's own statistics or given ones."""
    names, seen = blocks(params), {}
    for i, name in enumerate(names):
        valid = i >= len(names) - 2
        known = None if stored is None else stored[name]
        x, seen[name] = block(x, params[name], "VALID" if valid else "SAME", known)
        if valid:
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    features = jax.nn.relu(dense(x.mean((1, 2)), params["Dense_0"]))
    return dense(features, params["Dense_1"]), features, seen


def plain_context(params, x, stored=None):
    """`(contexts, moments)`, as `plain_classifier`."""
    seen = {}
    for name in blocks(params):
        known = None if stored is None else stored[name]
        x, seen[name] = block(x, params[name], "SAME", known)
    return conv(x, params["Conv5x5_0"], "SAME"), seen


# --- PyTorch --------------------------------------------------------------------------


def tensor(x):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.array(x)
    return torch.tensor(x.astype(np.float64) if x.dtype.kind == "f" else x)


def torch_network(params, stored=None):
    """A module that reads NHWC, with the parameters and statistics of ours."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn, names, classifier = torch.nn, blocks(params), "Dense_0" in params

    def conv2d(layer, padding):
        side, _, channels, features = layer["kernel"].shape
        return nn.Conv2d(channels, features, side, padding=padding)

    def one_block(i, name):
        valid = classifier and i >= len(names) - 2
        layer = params[name]["Conv5x5_0"]
        parts = {
            "Conv5x5_0": conv2d(layer, 0 if valid else 2),
            "BatchNorm_0": nn.BatchNorm2d(layer["bias"].shape[0]),
            "relu": nn.ReLU(),
        }
        return {name: nn.ModuleDict(parts), f"pool{i}": nn.MaxPool2d(2) if valid else 0}

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            for i, name in enumerate(names):
                for key, module in one_block(i, name).items():
                    setattr(self, key, module)
            if classifier:
                self.Dense_0 = nn.Linear(*params["Dense_0"]["kernel"].shape)
                self.Dense_1 = nn.Linear(*params["Dense_1"]["kernel"].shape)
            else:
                self.Conv5x5_0 = conv2d(params["Conv5x5_0"], 2)

        def forward(self, x):
            x = x.permute(0, 3, 1, 2)
            for i, name in enumerate(names):
                for module in getattr(self, name).values():
                    x = module(x)
                if pool := getattr(self, f"pool{i}"):
                    x = pool(x)
            if not classifier:
                return self.Conv5x5_0(x).permute(0, 2, 3, 1)
            return self.Dense_1(torch.relu(self.Dense_0(x.mean((2, 3)))))

    network = Network().double()
    arrays = to_torch(params)
    if stored is not None:
        for name, norm in stored.items():
            arrays[f"{name}.BatchNorm_0.running_mean"] = norm["BatchNorm_0"]["mean"]
            arrays[f"{name}.BatchNorm_0.running_var"] = norm["BatchNorm_0"]["var"]
    state = {key: tensor(value) for key, value in arrays.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in key or "num_batches" in key for key in missing)
    return network


def to_torch(params, prefix=""):
    """`{name: array}` in PyTorch's names and layouts."""
    found = {}
    for name, value in params.items():
        if isinstance(value, dict):
            found |= to_torch(value, f"{prefix}{name}.")
        elif name == "kernel":
            value = np.asarray(value)
            found[f"{prefix}weight"] = np.transpose(
                value, (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
            )
        else:
            found[prefix + {"scale": "weight"}.get(name, name)] = value
    return found


def from_torch(named):
    """What `to_torch` was given, from names and tensors."""
    tree = {}
    for name, value in named.items():
        *path, last = name.split(".")
        value = value.detach().numpy()
        if last == "weight":
            last = "scale" if value.ndim == 1 else "kernel"
            value = value.transpose(
                (2, 3, 1, 0)[-value.ndim :]
                if value.ndim == 4
                else tuple(range(value.ndim))[::-1]
            )
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = value
    return tree
