"""What Prometheus reads, in its text format; by hand, because the image holds no more than it needs."""

from collections import defaultdict

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Requests by contract: how many, how long, how much speech."""

    def __init__(self, engine: str, model: str) -> None:
        self._info = f'{{engine="{engine}",model="{model}"}}'
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * len(BUCKETS))
        self._seconds: dict[str, float] = defaultdict(float)
        self._count: dict[str, int] = defaultdict(int)
        self.speech_seconds = 0.0

    def observe(self, contract: str, code: int, seconds: float) -> None:
        """Count a request; `code` 499 is one whose caller went away."""
        self._requests[contract, code] += 1
        self._seconds[contract] += seconds
        self._count[contract] += 1
        for place, limit in enumerate(BUCKETS):
            if seconds <= limit:
                self._buckets[contract][place] += 1

    def text(self) -> str:
        """Return the page."""
        lines = ["# HELP avatar_tts_info Which engine this is, and its model", "# TYPE avatar_tts_info gauge"]
        lines.append(f"avatar_tts_info{self._info} 1")
        lines.append("# HELP avatar_tts_requests_total Requests by contract and HTTP code (499: the caller went away)")
        lines.append("# TYPE avatar_tts_requests_total counter")
        for (contract, code), count in sorted(self._requests.items()):
            lines.append(f'avatar_tts_requests_total{{contract="{contract}",code="{code}"}} {count}')
        lines.append("# HELP avatar_tts_request_seconds Time from the request to the end of its answer")
        lines.append("# TYPE avatar_tts_request_seconds histogram")
        for contract, counts in sorted(self._buckets.items()):
            name = f'avatar_tts_request_seconds_bucket{{contract="{contract}",le='
            lines += [f'{name}"{limit}"}} {count}' for limit, count in zip(BUCKETS, counts, strict=True)]
            lines.append(f'{name}"+Inf"}} {self._count[contract]}')
            lines.append(f'avatar_tts_request_seconds_sum{{contract="{contract}"}} {self._seconds[contract]:.6f}')
            lines.append(f'avatar_tts_request_seconds_count{{contract="{contract}"}} {self._count[contract]}')
        lines.append("# HELP avatar_tts_speech_seconds_total Speech made")
        lines.append("# TYPE avatar_tts_speech_seconds_total counter")
        lines.append(f"avatar_tts_speech_seconds_total {self.speech_seconds:.3f}")
        return "\n".join(lines) + "\n"
