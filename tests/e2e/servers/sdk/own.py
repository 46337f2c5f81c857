# SPDX-License-Identifier: Apache-2.0
"""app.py with an SDK that the program sets up by itself, without any variable, and that exports
over gRPC. Usage: own.py PORT BACKEND_PORT ADDRESS
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.urllib import URLLibInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

exporter = OTLPSpanExporter(endpoint=sys.argv[3], insecure=True)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=50))
trace.set_tracer_provider(provider)
FlaskInstrumentor().instrument()
URLLibInstrumentor().instrument()
runpy.run_path(str(Path(__file__).with_name("app.py")))
