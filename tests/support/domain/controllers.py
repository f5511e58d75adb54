"""The two controllers of a lab's domain, broken and mended by their host names."""

from __future__ import annotations

from credspec.lab.domain import Lab
from credspec.lab.second_controller import SecondController


class Controllers:
    """A lab's first and second controller."""

    def __init__(self, lab: Lab, second: SecondController) -> None:
        self._first, self._second = lab, second
        self.hosts = (lab.dc_host, second.host)

    def other_than(self, host: str) -> str:
        return self.hosts[host == self.hosts[0]]

    def stop(self, host: str) -> None:
        self._first.stop_dc() if self._is_first(host) else self._second.stop()

    def start(self, host: str) -> None:
        self._first.start_dc() if self._is_first(host) else self._second.start()

    def pause(self, host: str) -> None:
        self._first.pause_dc() if self._is_first(host) else self._second.pause()

    def resume(self, host: str) -> None:
        self._first.resume_dc() if self._is_first(host) else self._second.resume()

    def restore(self) -> None:
        """Bring both back from whatever was done to them."""
        self._second.delay(0)
        self._second.reconnect()
        for host, controller in zip(self.hosts, (self._first, self._second), strict=True):
            self.resume(host)
            if not controller.is_running():
                self.start(host)

    def _is_first(self, host: str) -> bool:
        return host == self.hosts[0]
