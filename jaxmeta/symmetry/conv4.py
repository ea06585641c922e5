"""The four-block network of the few-shot literature with learned symmetries.

Zhou, Knowles, Finn, "Meta-Learning Symmetries by Reparameterization" (2021), section 6.
"""

from flax import linen as nn

from jaxmeta.networks.conv import Conv4, Drawn
from jaxmeta.symmetry.layers import KroneckerMSRDense, MSRConv
from jaxmeta.symmetry.sharing import Kronecker, Sharing


class MSRConv4(Conv4):
    """`Conv4` whose kernels are `vec(W) = U v`, and also the weights of its head.

    With `Maml` it is the MSR learner: the inner loop moves v, normalisation and biases,
    the outer loop learns U.

    Attributes:
      sharing: the form of U in the convolutions.
      share_head: whether the head is `KroneckerMSRDense`; else it is an ordinary layer.
      drawn: of an ordinary head; all else is drawn as `torch`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = MSRConv4(features=8, num_classes=5)
      >>> variables = network.init(jax.random.key(0), jnp.ones((3, 28, 28, 1)))
      >>> jax.tree.map(jnp.shape, variables["symmetry"]["MSRConv_1"])
      {'A': (8, 8), 'B': (8, 8), 'C': (9, 9)}
    """

    sharing: Sharing = Kronecker()
    share_head: bool = True
    drawn: Drawn = "torch"

    def convolution(self) -> nn.Module:
        return MSRConv(
            features=self.features,
            kernel_size=(3, 3),
            padding="SAME",
            sharing=self.sharing,
        )

    def head(self, num_classes: int, num_in: int) -> nn.Module:
        if self.share_head:
            return KroneckerMSRDense(features=num_classes, use_bias=True)
        return super().head(num_classes, num_in)
