"""A service over HTTP
===================

It streams a saved estimator, with the standard library and fastrnn alone::

    model.save("model.safetensors")                 # in the notebook: a SequenceClassifier, say
    python examples/service.py model.safetensors    # where there is no scikit-learn

    curl -d '{"pressure": 1.2, "flow": 40}' localhost:8000/pump-7
    {"low": 0.1, "high": 0.9}

Each path has a sequence of its own, which a DELETE ends.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import fastrnn


def server(path, port):
    model = fastrnn.load(path)
    streams = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                stream = streams.get(self.path) or model.stream()
                y = stream.step(json.loads(body)).tolist()
            except (ValueError, TypeError) as error:  # the state is as before
                return self.reply(400, {"error": str(error)})
            streams[self.path] = stream
            if hasattr(model, "classes_"):
                y = dict(zip(map(str, model.classes_), y, strict=True))
            return self.reply(200, y)

        def do_DELETE(self):
            streams.pop(self.path, None)
            self.reply(200, None)

        def reply(self, status, value):
            data = json.dumps(value).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    # One request at a time: a step takes microseconds, and a stream is for one thread.
    return HTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a file written by the estimator's save")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    with server(args.model, args.port) as running:
        print(f"http://127.0.0.1:{running.server_port}", flush=True)
        running.serve_forever()
