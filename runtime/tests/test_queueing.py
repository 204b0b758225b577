"""The pool: nothing is lent twice at once, and who came first is served first."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from anomalib_lamp_runtime.queueing import FairPool


def test_nothing_is_lent_twice_at_once():
    pool, lent, most = FairPool(range(3)), [], []

    def use(_):
        with pool.borrow() as thing:
            assert thing not in lent
            lent.append(thing)
            most.append(len(lent))
            time.sleep(0.001)
            lent.remove(thing)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(use, range(120)))
    assert max(most) == 3


def test_who_came_first_is_served_first_also_before_who_gives_back_and_asks_again():
    pool, served = FairPool(["thing"]), []

    def use(name, times):
        for _ in range(times):
            with pool.borrow():
                served.append(name)

    with pool.borrow():
        threads = []
        for name in range(6):
            threads.append(threading.Thread(target=use, args=(name, 2)))
            threads[-1].start()
            while len(pool._waiting) <= name:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert served[:6] == list(range(6))
    assert sorted(served[6:]) == list(range(6))


def test_thing_is_given_back_after_an_error():
    pool = FairPool(["thing"])
    with pytest.raises(KeyError), pool.borrow():
        raise KeyError
    with pool.borrow() as thing:
        assert thing == "thing"
