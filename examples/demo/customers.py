# SPDX-License-Identifier: Apache-2.0
"""Light load: a few customers who look at products, fill carts and check out."""

from __future__ import annotations

import http.client
import random
import threading

CUSTOMERS = 6
PAGES_PER_SECOND = 20.0
TIMEOUT_S = 15.0


def pick(dice: random.Random) -> tuple[str, str]:
    """The method and path of a customer's next request."""
    user, product = dice.randrange(1, 60), dice.randrange(500)
    choices = (
        (15, "GET", "/"),
        (40, "GET", f"/products/{product}"),
        (5, "GET", f"/products/{product + 500}"),  # no such product
        (15, "GET", f"/carts/{user}?view=full"),
        (15, "POST", f"/carts/{user}/items"),
        (8, "POST", f"/checkout/{user}"),  # fails for one user in ten
        (2, "GET", "/favicon.ico"),  # no such page
    )
    _, method, path = dice.choices(choices, [weight for weight, _, _ in choices])[0]
    return method, path


class Load:
    """Threads that ask the shop over connections that they keep. ``failed`` counts no answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.answered = 0
        self.failed = 0
        self._threads = [
            threading.Thread(target=self._customer, args=(number,), name=f"customer {number}")
            for number in range(CUSTOMERS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every customer finish the request at hand."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _customer(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - no secret depends on it
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        mean_pause = CUSTOMERS / PAGES_PER_SECOND
        while not self._stopping.wait(dice.uniform(0, 2 * mean_pause)):
            answered = self._ask(connection, *pick(dice))
            with self._lock:
                self.answered += answered
                self.failed += not answered
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str) -> bool:
        body = b'{"quantity": 1}' if method == "POST" else None
        try:
            connection.request(method, path, body)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return True
