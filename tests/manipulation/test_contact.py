"""Contacts that give way as the official ones do."""

import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.contact import BOX, OBJECT, PAD, TABLE, between, pyramid


def held(cone, material, friction, condim):
    """The force that holds a ball 2 mm deep in the floor, newtons."""
    text = f"""
      <mujoco><option cone="{cone}"/>
      <default><geom contype="0" conaffinity="0"/></default><worldbody>
      <geom name="floor" type="plane" size="1 1 .1"/>
      <body pos="0 0 .018"><freejoint/><geom name="ball" size=".02" mass=".1"/></body>
      </worldbody><contact><pair geom1="floor" geom2="ball" condim="{condim}"
      friction="{friction} {friction} .1 .0001 .0001" solref="{material.time} 1"
      solimp="{material.low} {material.high} {material.width}"/></contact></mujoco>"""
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    # At rest every row has the force with which it is just not accelerated.
    rows = 1 if cone == "elliptic" else None
    return (data.efc_aref / data.efc_R)[:rows].sum()


@pytest.mark.parametrize("condim", [3, 4])
@pytest.mark.parametrize("friction", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("material", [OBJECT, between(PAD, OBJECT)])
def test_a_pyramid_is_as_stiff_as_a_cone(material, friction, condim):
    cone = held("elliptic", material, friction, condim)
    ours = held("pyramidal", pyramid(material, friction, condim), friction, condim)
    without = held("pyramidal", material, friction, condim)
    # Between both ends the impedance is not converted exactly.
    np.testing.assert_allclose(ours, cone, rtol=0.03)
    if friction == 2.0:
        assert without < 0.2 * cone


def test_a_contact_has_the_mean_of_both_materials():
    expected = (0.01, 0.97, 0.99, 0.01)
    np.testing.assert_allclose(between(PAD, OBJECT)[:4], expected)
    assert between(BOX, BOX) == BOX
    assert not between(BOX, OBJECT).box
    assert between(TABLE, PAD) == between(PAD, TABLE)
