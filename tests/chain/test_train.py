"""The loader: what augmentation does, that labels stay with images, and that seeds decide everything."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from coc_deploy import train
from coc_deploy.network import Network
from coc_deploy.train import Augment, Job, Schedule, Share
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from tiny import digits, float_network, same_state


def job(
    folder: Path,
    network: Network | None = None,
    data: Dataset | None = None,
    *,
    augment: Augment | None = None,
    batch: int = 64,
    epochs: int = 2,
    seed: int = 1,
    key: str = "k",
    optimizer: str = "sgd",
) -> Job:
    chosen = network or float_network()

    def prepare(epoch: int) -> bool:
        chosen.train()
        return False

    return Job(
        name="test",
        key=key,
        network=chosen,
        parameters=list(chosen.parameters()),
        loss=lambda x, y: train.cross_entropy(chosen(x), y),
        prepare=prepare,
        schedule=Schedule(epochs, 0.01 if optimizer == "adam" else 0.1, batch, optimizer=optimizer),
        seed=seed,
        folder=folder,
        train=data or digits("train"),
        held_out=digits("held-out"),
        augment=augment or Augment(1, False),
    )


def numbered(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Dataset:
    """Random images whose label is their index."""
    images = np.random.default_rng(0).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return Dataset("numbered", images, np.arange(count), ("a",))


@pytest.mark.parametrize(
    "augment", [Augment(0, False), Augment(2, False), Augment(0, True), Augment(3, True)]
)
def test_augmentation_equals_cropping_and_mirroring_image_by_image(tmp_path: Path, augment: Augment) -> None:
    data = numbered(20)
    work = job(tmp_path, data=data, augment=augment, batch=8)
    random = torch.Generator().manual_seed(5)
    batches = list(train.batches(work, torch.Generator().manual_seed(5)))
    order = torch.randperm(20, generator=random)
    assert len(batches) == 2
    for start, (x, y) in zip((0, 8), batches, strict=True):
        shift = torch.randint(0, 2 * augment.pad + 1, (2, 8, 1), generator=random)
        mirror = torch.rand(8, 1, generator=random) < 0.5 if augment.flip else torch.zeros(8, 1)
        for i in range(8):
            index, top, left = int(order[start + i]), int(shift[0, i]), int(shift[1, i])
            wide = np.pad(data.images[index], ((0, 0), *((augment.pad,) * 2,) * 2), constant_values=128)
            crop = wide[:, top : top + 6, left : left + 5]
            crop = crop[:, :, ::-1] if mirror[i] else crop
            np.testing.assert_array_equal(x[i].numpy(), (crop.astype(np.float32) - 128) / 128)
            assert int(y[i]) == index


def test_an_epoch_takes_its_share_of_the_images_and_others_the_next_time(tmp_path: Path) -> None:
    work = job(tmp_path, data=numbered(40), batch=5)
    work = dataclasses.replace(work, schedule=dataclasses.replace(work.schedule, share=0.25))
    epochs = [
        [int(label) for _, y in train.batches(work, torch.Generator().manual_seed(epoch)) for label in y]
        for epoch in range(8)
    ]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert len({label for epoch in epochs for label in epoch}) > 30
    work = dataclasses.replace(work, train=digits("train"), key="share")
    (first, _) = train.fit(work)
    assert first["images_per_s"] * first["seconds"] == pytest.approx(round(0.25 * 1174) // 5 * 5)


def test_shifts_and_mirrors_of_every_kind_occur(tmp_path: Path) -> None:
    """A single white pixel tells where an image went."""
    images = np.zeros((600, 1, 5, 7), np.uint8)
    images[:, :, 2, 1] = 255
    data = Dataset("pixel", images, np.zeros(600, np.int64), ("a",))
    work = job(tmp_path, data=data, augment=Augment(1, True), batch=600)
    ((x, _),) = train.batches(work, torch.Generator().manual_seed(0))
    places = {tuple(place) for place in (x[:, 0] > 0.9).nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (0, 1, 2, 4, 5, 6)}


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    data = numbered(50)
    for x, y in train.batches(
        job(tmp_path, data=data, augment=Augment(0, False), batch=16), torch.Generator().manual_seed(3)
    ):
        pixels = (x * 128 + 128).to(torch.uint8).numpy()
        np.testing.assert_array_equal(pixels, data.images[y.numpy()])


def test_an_epoch_takes_each_image_at_most_once_in_full_batches(tmp_path: Path) -> None:
    work = job(tmp_path, data=numbered(50), batch=16)
    labels = [y for _, y in train.batches(work, torch.Generator().manual_seed(3))]
    assert [len(y) for y in labels] == [16, 16, 16]
    assert len(set(torch.cat(labels).tolist())) == 48


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    work = job(tmp_path, data=numbered(5), batch=16)
    ((_, y),) = train.batches(work, torch.Generator().manual_seed(3))
    assert sorted(y.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one_without_overlap(processes: int, tmp_path: Path) -> None:
    work = job(tmp_path, data=numbered(50), augment=Augment(2, True), batch=18)
    whole = list(train.batches(work, torch.Generator().manual_seed(3)))
    shares = [
        list(train.batches(work, torch.Generator().manual_seed(3), Share(rank, processes)))
        for rank in range(processes)
    ]
    assert [len(share) for share in shares] == [len(whole)] * processes
    for step, (x, y) in enumerate(whole):
        assert {len(share[step][1]) for share in shares} == {18 // processes}
        assert torch.equal(torch.cat([share[step][0] for share in shares]), x)
        assert torch.equal(torch.cat([share[step][1] for share in shares]), y)


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CocError, match="a batch of 5 images is too small for 3 processes"):
        list(train.batches(job(tmp_path, batch=5), torch.Generator(), Share(0, 3)))


def orders(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> list[list[int]]:
    """Labels of every epoch of a training in the order in which the loop saw them."""
    seen: list[list[int]] = []
    plain = train.batches

    def recording(work: Job, generator: torch.Generator, share: Share):  # type: ignore[no-untyped-def]
        seen.append([])
        for x, y in plain(work, generator, share):
            seen[-1] += y.tolist()
            yield x, y % 10

    monkeypatch.setattr(train, "batches", recording)
    data = Dataset("numbered", digits("train").images[:128], np.arange(128), digits("train").classes)
    train.fit(job(folder, data=data, seed=seed, epochs=3))
    monkeypatch.undo()
    return seen


def test_the_order_differs_between_epochs_and_seeds_and_repeats_for_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    a, b, c = (orders(f, monkeypatch, seed) for f, seed in zip(folders, (1, 1, 2), strict=True))
    assert a == b
    assert len({tuple(order) for order in a + c}) == 6


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_that_stops_after_an_epoch_continues_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = float_network(), float_network()
    log = train.fit(job(tmp_path / "whole", whole, epochs=3, optimizer=optimizer))

    class Killed(Exception):
        pass

    work = job(tmp_path / "parts", parts, epochs=3, optimizer=optimizer)
    steps, plain = 0, work.loss

    def dying(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps > 20:  # 18 steps an epoch
            raise Killed
        return plain(x, y)

    with pytest.raises(Killed):
        train.fit(Job(**{**work.__dict__, "loss": dying}))
    again = float_network(seed=9)
    continued = train.fit(job(tmp_path / "parts", again, epochs=3, optimizer=optimizer))
    assert [record["loss"] for record in continued] == [record["loss"] for record in log]
    assert same_state(whole.state_dict(), again.state_dict())


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_no_progress(tmp_path: Path) -> None:
    work = job(tmp_path)
    bad = Job(**{**work.__dict__, "loss": lambda x, y: work.loss(x, y) * float("nan")})
    with pytest.raises(CocError, match="test: the loss is not finite after epoch 1: lower the learning rate"):
        train.fit(bad)
    assert not (tmp_path / "progress.pt").exists()


def test_progress_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "progress.pt").write_bytes(b"nothing")
    with pytest.raises(CocError, match=r"progress.pt: unreadable; remove it to train this stage"):
        train.fit(job(tmp_path))


def test_an_epoch_on_disk_is_reported_with_its_speed_and_the_time_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train.fit(job(tmp_path, epochs=2))
    out, err = capfd.readouterr()
    one, two = out.splitlines()
    line = r"  test epoch {}/2: loss \d\.\d{{4}}, held-out \d+\.\d\d %, \d+ images/s"
    assert re.fullmatch(line.format(1) + r", \d\d:\d\d left", one)
    assert re.fullmatch(line.format(2), two)
    assert err == "", "no progress bar where nobody looks"


def test_progress_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    train.fit(job(tmp_path, epochs=1, key="one"))
    fresh = float_network()
    assert len(train.fit(job(tmp_path, fresh, epochs=1, key="two"))) == 1
    (tmp_path / "clean").mkdir()
    clean = float_network()
    train.fit(job(tmp_path / "clean", clean, epochs=1))
    assert same_state(fresh.state_dict(), clean.state_dict())


def test_the_rate_falls_along_a_cosine_to_zero_after_a_warm_up() -> None:
    schedule = Schedule(10, 0.4, 64)
    assert schedule.rate(0) == pytest.approx(0.05 * 0.4)
    assert schedule.rate(5) == pytest.approx(0.2)
    assert schedule.rate(10) == pytest.approx(0, abs=1e-9)
    assert Schedule(4, 0.4, 64).rate(0) == pytest.approx(0.4)


def test_adam_learns_and_decays_weights_apart_from_the_gradient(tmp_path: Path) -> None:
    work = job(tmp_path, epochs=2, optimizer="adam")
    log = train.fit(work)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    saved = torch.load(tmp_path / "progress.pt", weights_only=True)["optimizer"]
    assert {"exp_avg", "exp_avg_sq", "step"} <= saved["state"][0].keys()
    assert [group["weight_decay"] for group in saved["param_groups"]] == [1e-4, 0]
    assert all(group["decoupled_weight_decay"] for group in saved["param_groups"])


def test_distillation_weighs_labels_and_teacher_by_hinton() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(6, 4, generator=generator) for _ in range(2))
    y = torch.arange(6) % 4
    hard = float(torch.nn.functional.cross_entropy(student, y))
    p, q = (torch.softmax(logits / 3, dim=1) for logits in (teacher, student))
    soft = float((p * (p.log() - q.log())).sum(dim=1).mean()) * 9
    assert float(train.distillation([student], teacher, y, 3, 0)) == pytest.approx(hard, rel=1e-5)
    assert float(train.distillation([student], teacher, y, 3, 1)) == pytest.approx(soft, rel=1e-5)
    both = float(train.distillation([student, teacher], teacher, y, 3, 1))
    assert both == pytest.approx(soft / 2, rel=1e-5), "mean over exits; the teacher's own loss is zero"
