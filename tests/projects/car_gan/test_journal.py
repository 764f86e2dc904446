"""Long work that stops and goes on."""

import os
import signal

import pytest
from car_gan.output import work_through

from gan_plugin.errors import UserError, sentence_of
from gan_plugin.processes import Stopped


def test_a_signal_keeps_what_is_done_and_the_next_call_goes_on(tmp_path):
    done = []

    def work(item):
        done.append(item)
        if item == 2 and len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"square": item * item}

    journal = tmp_path / "journal"
    with pytest.raises(Stopped, match="Stopped by SIGTERM; the same command continues") as stop:
        list(work_through(range(5), work, journal, workers=0, title="x"))
    assert stop.value.exit_code == 143
    # killed in the middle of the next line
    with open(journal, "ab") as file:
        file.write(b'{"squ')
    results = list(work_through(range(5), work, journal, workers=0, title="x"))
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16]
    assert done == [0, 1, 2, 2, 3, 4] and journal.read_bytes().count(b"\n") == 5


def refuse(item):
    if item == 1:
        raise UserError("The second one is broken; mend it.")
    return {"item": item}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_is_the_users(tmp_path, workers):
    with pytest.raises(UserError) as error:
        list(work_through(range(4), refuse, tmp_path / "journal", workers=workers, title="x"))
    assert sentence_of(error.value) == "The second one is broken; mend it."
    assert (tmp_path / "journal").read_text() == '{"item": 0}\n'
