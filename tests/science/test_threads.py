"""Items made in a thread while those before are used: the same ones, no sooner than needed, errors and all."""

import threading

import numpy as np
import pytest

from dsa110_contimg.science.threads import ahead


def test_items_come_in_their_order_and_all():
    assert list(ahead(range(100))) == list(range(100))
    assert list(ahead([])) == []
    arrays = [np.zeros(3), np.ones(3)]  # what has no truth value of its own ends nothing
    assert all(got is given for got, given in zip(ahead(arrays), arrays, strict=True))


def test_the_next_is_made_while_one_is_used_and_no_more_than_that():
    made = []
    asked = threading.Event()

    def items():
        for number in range(5):
            made.append(number)
            if number == 1:
                asked.set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert asked.wait(10), "the second is made though nobody has asked for it"
    assert made == [0, 1]
    assert list(coming) == [1, 2, 3, 4]


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise OSError("a disk has gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="a disk has gone"):
        next(coming)


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    coming = ahead(iter(range(1000)))
    assert next(coming) == 0
    coming.close()
    assert threading.active_count() == before
