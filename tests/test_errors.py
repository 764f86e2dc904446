"""The sentence for the user: what each UserError adds on its way out is told, also out of another process."""

import multiprocessing
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._utils import ExceptionWrapper
from torch.multiprocessing.spawn import ProcessRaisedException

from gan_plugin.errors import UserError, as_user_error, explanation, run_command_line, sentence_of
from gan_plugin.files import check_exists, write_whole

# (whether it is a UserError, whether it is raised from the one before, whether it repeats what that one says)
LINKS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=5)


def raise_chain(links):
    """Raise the last of a chain of exceptions; the k-th says "word<k>"."""
    number = len(links) - 1
    is_ours, is_caused, repeats = links[-1]
    text = f"word{number} a_{number}/b.json: key {number}."
    try:
        if number:
            raise_chain(links[:-1])
    except Exception as inner:
        if repeats:
            text = f"{text[:-1]}: {inner} Mend it."
        error = UserError(text) if is_ours else ValueError(text)
        if is_caused:
            raise error from inner
        raise error  # noqa: B904
    raise UserError(text) if is_ours else ValueError(text)


def told_of(links):
    """The numbers of the exceptions to tell: the first UserError, and those raised from it, one from another."""
    first = next((number for number, link in enumerate(links) if link[0]), None)
    if first is None:
        return None
    told = {first}
    for number in range(first + 1, len(links)):
        if not links[number][1]:
            break
        if links[number][0]:
            told.add(number)
    return told


def in_a_worker(links):
    """The error that PyTorch's DataLoader raises for one of a worker process."""
    try:
        raise_chain(links)
    except Exception:
        wrapper = ExceptionWrapper(sys.exc_info(), where="in DataLoader worker process 0")
    try:
        wrapper.reraise()
    except Exception as error:
        return error


def in_a_launched_process(links):
    """The error that torch.multiprocessing raises for one of a process that it has started."""
    try:
        raise_chain(links)
    except Exception:
        text = ExceptionWrapper(sys.exc_info()).exc_msg
    return ProcessRaisedException(f"\n\n-- Process 0 terminated with the following error:\n{text}\n", 0, 1)


def here(links):
    try:
        raise_chain(links)
    except Exception as error:
        return error


@pytest.mark.parametrize("raised", [here, in_a_worker, in_a_launched_process])
@settings(max_examples=40)
@given(links=LINKS)
def test_all_that_belongs_to_the_first_fault_is_told_and_nothing_twice(raised, links):
    sentence = explanation(raised(links))
    told = told_of(links)
    if told is None:
        assert sentence is None
        return
    assert "Traceback" not in sentence and "UserError" not in sentence and "\n" not in sentence
    for number in range(len(links)):
        # an error in between that is none of ours is told where one of ours repeats it
        repeated = any(links[k][0] and all(link[2] for link in links[number + 1 : k + 1]) for k in told if k > number)
        assert sentence.count(f"word{number} ") == (number in told or repeated), sentence


def test_a_pool_keeps_the_context_and_the_command_line_prints_it(capsys):
    links = [(True, False, False), (True, True, False)]

    def main():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pool.map(raise_chain, [links])

    assert run_command_line(main) == 2
    assert capsys.readouterr().err == "error: word1 a_1/b.json: key 1: word0 a_0/b.json: key 0.\n"


def test_sentence_of_an_error_that_is_none_of_ours_is_its_text():
    assert sentence_of(FloatingPointError("loss is NaN")) == "loss is NaN"


@pytest.mark.parametrize(
    "error, kinds, said",
    [
        (FileNotFoundError(2, "No such file or directory", "a"), (), "No such file or directory"),
        (ValueError("line 3.\nand more"), (), "line 3"),
        (KeyError("runs"), (), "KeyError: 'runs'"),
        (ZeroDivisionError(), (ArithmeticError,), "ZeroDivisionError"),
    ],
)
def test_what_a_broken_file_raises_becomes_a_sentence_with_its_reason(error, kinds, said):
    with pytest.raises(UserError) as caught, as_user_error("a.json is broken", "name another", *kinds):
        raise error
    assert str(caught.value) == f"a.json is broken ({said}); name another." and caught.value.__cause__ is error


def test_what_is_none_of_a_users_mistakes_stays_what_it_is():
    with pytest.raises(KeyError), as_user_error("a.json is broken", "name another", OSError):
        raise KeyError("runs")
    with pytest.raises(UserError, match="^first$"), as_user_error("a.json is broken", "name another"):
        raise UserError("first")


def test_a_file_is_written_whole_and_a_path_checked_for_its_kind(tmp_path):
    file = tmp_path / "a.txt"
    for content in ("ä", "ä".encode(), lambda opened: opened.write("ä".encode())):
        write_whole(file, content)
        assert file.read_bytes() == b"\xc3\xa4"
    check_exists(file, "The list", "make one")
    check_exists(tmp_path, "", "make it", folder=True)
    with pytest.raises(UserError, match=rf"^The list {tmp_path} does not exist; make one\.$"):
        check_exists(tmp_path, "The list", "make one")
    with pytest.raises(UserError, match=rf"^{file} does not exist; make it\.$"):
        check_exists(file, "", "make it", folder=True)
    with pytest.raises(UserError, match="could not be written .*Free some disk space, or choose another place"):
        write_whole(tmp_path, "text")
    assert list(tmp_path.iterdir()) == [file]
