"""Groups from the digits that come with scikit-learn.

Stand-ins that are always there, for tests, examples and machines without data: turned
digits for Rotated MNIST, and filled-in forms for writers. Neither is a benchmark.
"""

import dataclasses

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data.digits import FORM_STARTS, digits_by_form
from jaxmeta.data.groups import ArrayGroups, Groups, GroupSource
from jaxmeta.data.image_folder import LabelledImages
from jaxmeta.data.rotated_mnist import rotated_groups

# The first nine forms train.
_VALIDATION_FORMS, _TEST_FORMS = (9, 10), (11, 12, 13)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitGroups(GroupSource):
    """Groups of scikit-learn's digits; subclasses say what a group is.

    Forms 0 to 8 (1157 images) train, 9 and 10 (258) validate, 11 to 13 (382) test.

    Attributes:
      image_size: side of the images, >= 8. Pixels are repeated by the largest whole
        factor that fits, and the rest is a margin of paper.

    Raises:
      ValueError: for a number outside its range; for `image_size` when it is read.

    References:
      Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
      Learning Repository (1998).
    """

    image_size: int = 28

    @property
    def num_classes(self) -> int:
        return 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotatedDigits(DigitGroups):
    """Digits turned by 0, 10, ... 130 degrees, the stand-in for `RotatedMnist`.

    The angles show 3 x 809, 3 x 231, 3 x 69, 3 x 34 and 2 x 11 training images, drawn
    with replacement and as unequal as those of Rotated MNIST; 86 to validate, 127 to
    test.

    Example:
      >>> RotatedDigits().sizes("train").tolist()
      [809, 809, 809, 231, 231, 231, 69, 69, 69, 34, 34, 34, 11, 11]
    """

    def groups(self) -> dict[Split, Groups]:
        images, labels = digits_by_form(self.image_size)
        ends = [FORM_STARTS[_VALIDATION_FORMS[0]], FORM_STARTS[_TEST_FORMS[0]]]
        train, validation, test = map(
            LabelledImages, np.split(images, ends), np.split(labels, ends)
        )
        # There are few: an angle may show all of them, where of MNIST it has a fifth.
        train = LabelledImages(*(np.repeat(array, 5, axis=0) for array in train))
        return rotated_groups(
            {"train": train, "validation": validation, "test": test},
            rng=np.random.default_rng(0),
            most={},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormDigits(DigitGroups):
    """Digits by the form that they were written on, the stand-in for `MnistWriters`.

    The 14 forms hold 114 to 139 digits. A form is one person's, but the writers are not
    named: two forms may be by the same one.

    Example:
      >>> FormDigits().sizes("test").tolist()
      [130, 122, 130]
    """

    def groups(self) -> dict[Split, Groups]:
        images, labels = digits_by_form(self.image_size)
        forms = np.searchsorted(FORM_STARTS, np.arange(len(labels)), side="right") - 1
        return ArrayGroups(
            inputs=images[..., None],
            targets=labels,
            group_ids=forms,
            held_out=(_VALIDATION_FORMS, _TEST_FORMS),
        ).groups()
