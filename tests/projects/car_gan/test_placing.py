"""Where a new car stands, how large it is and what covers it, by hand."""

import numpy as np
import pytest
from car_gan.compose.compose import compose_defaults
from car_gan.compose.place import Placement, find_place, fit_ground, paste
from car_gan.compose.samples import Sprite
from car_gan.scenes.cityscapes import paint
from car_gan.scenes.scene import Scene, SceneObject

from gan_plugin.data.cityscapes import Polygons

LOOK = compose_defaults().LOOK


def car(base, tall, x=100, visible=1.0):
    """A car of `tall` pixels that stands on `base`."""
    area = int(tall) * 20
    mask = np.zeros((int(tall), 20), bool)
    mask.ravel()[: int(area * visible)] = True
    return SceneObject(0, "car", mask, (x, base - int(tall)), area, (x, base - int(tall), x + 20, base))


def test_size_follows_from_where_a_car_stands():
    """Heights 0.5 (y - 80), with a fifth of wrong pairs and hidden cars: slope, horizon and a scene's own horizon."""
    scenes = []
    for base in range(100, 230, 4):
        tall = 0.5 * (base - 80) if base % 20 else 70
        scenes.append(Scene([car(base, tall), car(base, 30, visible=0.5)], (256, 512)))
    ground = fit_ground(scenes, 100.0, "car")
    assert ground.slope == pytest.approx(0.5, abs=0.02) and ground.horizon * 256 == pytest.approx(80, abs=3)
    # two cars under a horizon at 90: half of the weight is theirs
    own = Scene([car(150, 0.5 * (150 - 90)), car(200, 0.5 * (200 - 90))], (256, 512))
    expected = (90 + ground.horizon * 256) / 2
    assert ground.horizon_of(own, "car") == pytest.approx(expected, abs=2)
    assert ground.horizon_of(Scene([], (256, 512)), "car") == ground.horizon * 256


def rectangle(label, x0, y0, x1, y1):
    """A polygon that Pillow fills from (x0, y0) to just before (x1, y1)."""
    return {"label": label, "polygon": [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]}


def test_order_masks_and_pixels_by_hand():
    """A person far behind, a new car of 8x6 pixels on row 20, and a pole before it."""
    entries = [rectangle("road", 0, 10, 40, 30), rectangle("person", 8, 6, 12, 18), rectangle("pole", 14, 2, 16, 25)]
    scene = paint(Polygons(30, 40, entries))
    alpha = np.ones((6, 8), np.float32)
    alpha[0, 0] = 0.25
    sprite = Sprite("new", np.full((6, 8, 3), 200, np.float32), alpha)
    hidden = np.zeros((6, 8), bool)
    hidden[:, 4:6] = True
    look = LOOK.clone()
    look.SHADOW = 0.0
    before = np.full((30, 40, 3), 60, np.float32)
    picture, after = paste(before, scene, Placement(sprite, (10, 14), 20.0, hidden), "car", look)
    road, person, pole, new = after.objects
    expected = np.zeros((30, 40), bool)
    expected[14:20, 10:18] = True
    expected[14:20, 14:16] = False
    expected[14, 10] = False
    assert np.array_equal(new.full_mask((30, 40)), expected) and new.synthetic and new.area == 6 * 6 - 1
    assert new.visible == pytest.approx(35 / 47)
    # the person had 4x12 pixels, of which the car hides 2x4 but for one corner; the pole is before it
    assert person.area == 48 - 8 + 1 and pole.area == 2 * 23
    assert not (person.full_mask((30, 40)) & expected).any() and not (road.full_mask((30, 40)) & expected).any()
    assert (picture[expected] == 200).all() and (before == 60).all()
    assert (picture[14, 10] == 60 + 0.25 * 140).all()
    assert (picture[14:20, 14:16] == 60).all() and (picture[20:] == 60).all() and (picture[:14] == 60).all()
    shaded, _ = paste(before, scene, Placement(sprite, (10, 14), 20.0, hidden), "car", LOOK)
    assert (shaded[expected] == 200).all() and shaded[20, 12].max() < 60 and (shaded[20, 14:16] == 60).all()


def test_places_are_on_the_road_free_and_of_the_right_size():
    entries = [rectangle("sky", 0, 0, 200, 40), rectangle("road", 60, 40, 200, 120), rectangle("bus", 120, 20, 180, 80)]
    scene = paint(Polygons(120, 200, entries))
    cars = [Scene([car(base, 0.5 * (base - 40), x=90)], (120, 200)) for base in range(60, 116, 2)]
    ground, rules = fit_ground(cars, 100.0, "car"), compose_defaults().PLACE
    sprite = Sprite("new", np.full((20, 40, 3), 9, np.float32), np.ones((20, 40), np.float32))
    found = []
    for seed in range(60):
        placement = find_place(scene, sprite, ground, 40.0, rules, np.random.default_rng(seed))
        if placement:
            found.append(placement)
    assert len(found) > 20
    for placement in found:
        (x, y), (height, width) = placement.corner, placement.sprite.alpha.shape
        assert height == pytest.approx(0.5 * (placement.base - 40), rel=0.05) and height >= rules.MIN_HEIGHT
        assert width == pytest.approx(2 * height, abs=1) and y + height == round(placement.base)
        assert x + 0.1 * width >= 60 - 0.1 * width - 1 and x + width <= 200
        if placement.base > 80:
            # before the bus: nothing hides it
            assert not placement.hidden.any()
        else:
            over_bus = np.zeros((120, 200), bool)
            over_bus[20:80, 120:180] = placement.base < 80
            assert np.array_equal(placement.hidden, over_bus[y : y + height, x : x + width])
