import pytest
from prometheus_client import CollectorRegistry

from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.admission import Admission, Refused
from websocket_pool.close_codes import CloseCode


def test_an_address_has_so_many_sockets_and_an_ipv6_network_is_one_address() -> None:
    registry = CollectorRegistry()
    admission = Admission(5, 1, StreamMetrics(registry))
    with admission.socket("192.0.2.1"), admission.socket("2001:db8:1:2::1"), admission.socket(""):
        for again in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1:2:ffff::9"):
            with pytest.raises(Refused) as refused, admission.socket(again):
                pass
            assert refused.value.code is CloseCode.TOO_MANY
        with admission.socket("2001:db8:1:3::1"), admission.socket(""):
            assert registry.get_sample_value("ws_active_connections") == 5
            with pytest.raises(Refused) as refused, admission.socket("192.0.2.2"):
                pass
            assert refused.value.code is CloseCode.OVERLOADED
    with admission.socket("192.0.2.1"):
        pass
    assert registry.get_sample_value("ws_active_connections") == 0
