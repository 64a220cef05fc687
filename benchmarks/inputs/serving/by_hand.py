"""The model behind uvicorn, as somebody would write it by hand: python by_hand.py PORT."""

import json
import sys
from pathlib import Path

import uvicorn
from penguins.predict import load

MODEL = load(Path("/srv/packager/model/model.skops"))


async def app(scope, receive, send):
    """Answer a request, whatever its path is."""
    if scope["type"] != "http":
        return
    told = b"{}"
    if scope["method"] == "POST":
        body, more = b"", True
        while more:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        columns = {one["name"]: one["data"] for one in json.loads(body)["inputs"]}
        told = json.dumps(MODEL.predict(columns)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
