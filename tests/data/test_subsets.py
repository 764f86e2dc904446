"""Subsets: seeded, disjoint, scaled down, independent of the machine, loaded once, with the parent's metadata."""

import random

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import plugin_cfg

from gan_plugin.data.builtin import prepare_datasets, register_builtin_datasets, register_penn_fudan
from gan_plugin.data.subsets import apportion, draw_subsets, register_subsets, resolve_subset
from gan_plugin.errors import UserError

PARENT = "subset_parent"


@pytest.fixture
def parent():
    """A registered set of 40 records in scrambled order; the list counts how often it was loaded."""
    loads = []

    def load():
        loads.append(1)
        records = [{"file_name": f"/data/{i:03d}.png", "annotations": [{"id": i}]} for i in range(40)]
        random.Random(len(loads)).shuffle(records)
        return records

    DatasetCatalog.register(PARENT, load)
    MetadataCatalog.get(PARENT).set(thing_classes=["x"], evaluator_type="coco", json_file="/truth/of/all.json")
    yield loads
    for name in [name for name in DatasetCatalog.list() if name.startswith(PARENT)]:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def names_in(dataset):
    return [record["file_name"] for record in DatasetCatalog.get(dataset)]


def test_apportion_is_largest_remainder():
    # 150/170 of 75, 75, 20 is 66.18, 66.18, 17.65: the one image left over goes to the largest remainder
    assert apportion([75, 75, 20], 150) == [66, 66, 18]
    assert apportion([75, 75, 20], 170) == [75, 75, 20]
    assert apportion([1, 1, 1], 2) == [1, 1, 0]


def test_draw_is_a_function_of_the_set_of_names_and_the_seed_only():
    names = [f"{i}" for i in range(30)]
    drawn = draw_subsets(names, 3, {"a": 4, "b": 5})
    random.seed(99)
    assert drawn == draw_subsets(names[::-1] + names, 3, {"a": 4, "b": 5})
    assert drawn != draw_subsets(names, 4, {"a": 4, "b": 5})
    assert [len(drawn["a"]), len(drawn["b"]), len({*drawn["a"], *drawn["b"]})] == [4, 5, 9]


def test_subsets_are_disjoint_lazy_and_load_the_parent_once(parent):
    assert register_subsets(PARENT, 0, {"a": 10, "b": 8, "eval": 2}) == [f"{PARENT}_{s}" for s in ("a", "b", "eval")]
    assert parent == []
    a, b, held_out = (names_in(f"{PARENT}_{suffix}") for suffix in ("a", "b", "eval"))
    assert [len(a), len(b), len(held_out)] == [10, 8, 2]
    assert len({*a, *b, *held_out}) == 20
    assert a == sorted(a)
    assert len(parent) == 1


def test_what_a_caller_writes_into_its_records_stays_there(parent):
    register_subsets(PARENT, 0, (10, 10, 2))
    DatasetCatalog.get(f"{PARENT}_a")[0]["annotations"][0]["id"] = "changed"
    assert all(record["annotations"][0]["id"] != "changed" for record in DatasetCatalog.get(f"{PARENT}_a"))


def test_sizes_scale_down_in_proportion_and_registering_again_replaces(parent):
    register_subsets(PARENT, 0, {"a": 5, "b": 5, "eval": 5})
    first = names_in(f"{PARENT}_a")
    register_subsets(PARENT, 0)
    # 300/300/50 of 40 images: 18.46, 18.46, 3.08
    assert [len(names_in(f"{PARENT}_{s}")) for s in ("a", "b", "eval")] == [19, 18, 3]
    register_subsets(PARENT, 1, {"a": 5, "b": 5, "eval": 5})
    assert len(names_in(f"{PARENT}_a")) == 5
    assert names_in(f"{PARENT}_a") != first


def test_metadata_is_the_parents_without_its_truth_file(parent):
    register_subsets(PARENT)
    metadata = MetadataCatalog.get(f"{PARENT}_eval")
    assert (metadata.thing_classes, metadata.evaluator_type) == (["x"], "coco")
    assert metadata.name == f"{PARENT}_eval"
    assert not hasattr(metadata, "json_file")


def test_a_replaced_parent_is_loaded_afresh(parent):
    register_subsets(PARENT, 0, {"a": 1, "b": 1})
    names_in(f"{PARENT}_a")
    DatasetCatalog.remove(PARENT)
    DatasetCatalog.register(PARENT, lambda: [{"file_name": "new1"}, {"file_name": "new2"}])
    assert sorted(names_in(f"{PARENT}_a") + names_in(f"{PARENT}_b")) == ["new1", "new2"]


def test_resolve_registers_a_subset_by_its_name_or_lists_near_matches(parent):
    assert resolve_subset(PARENT) == PARENT
    assert resolve_subset(f"{PARENT}_b", 0, {"a": 3, "b": 4}) == f"{PARENT}_b"
    assert len(names_in(f"{PARENT}_b")) == 4
    with pytest.raises(UserError, match="cityscapes_fine_instance_seg_train"):
        resolve_subset("cityscapes_fine_instance_seg_trian_a")


def test_too_few_images_is_a_sentence(parent):
    register_subsets(PARENT, 0, {"a": 1000, "b": 1000, "eval": 1})
    assert [len(names_in(f"{PARENT}_{part}")) for part in ("a", "b", "eval")] == [19, 20, 1]
    register_subsets(PARENT, 0, {f"p{number}": 1 for number in range(41)})
    with pytest.raises(UserError, match="40 images are too few"):
        names_in(f"{PARENT}_p0")


def test_a_users_own_data_set_keeps_its_name(parent):
    """Under a name of a built-in set or of a subset, whatever registers it later; ours are replaced as ever."""
    own, built_in = f"{PARENT}_b", "penn_fudan_val"
    DatasetCatalog.pop(built_in)
    MetadataCatalog.pop(built_in, None)
    for name in (own, built_in):
        DatasetCatalog.register(name, lambda: [{"file_name": "mine"}])
        MetadataCatalog.get(name).set(thing_classes=["mine"])
    try:
        cfg = plugin_cfg()
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        cfg.DATASETS.SUBSETS.SIZES = (3, 4, 5)
        register_builtin_datasets()
        register_penn_fudan("elsewhere", seed=1)
        prepare_datasets(cfg, train=False)
        register_subsets(PARENT, 0, (1, 2, 3))
        register_subsets(PARENT, 0, (3, 4, 5))
        for name in (own, built_in):
            assert names_in(name) == ["mine"] and MetadataCatalog.get(name).thing_classes == ["mine"]
        assert len(names_in(f"{PARENT}_a")) == 3
        assert MetadataCatalog.get("penn_fudan_train_a").mask_dir.endswith("PedMasks")
    finally:
        DatasetCatalog.pop(built_in)
        MetadataCatalog.pop(built_in)
        register_builtin_datasets()
    assert MetadataCatalog.get(built_in).thing_classes == ["person"]
