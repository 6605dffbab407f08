"""The client library of Python, asked by a test.

One JSON request comes in as a line on standard input, one JSON answer goes out as a line:
what the library returned, or what it says of an error.
"""

import functools
import json
import sys

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

GROUP, VERSION, PLURAL = "steward.butlerlabs.dev", "v1alpha1", "tenantcontrolplanes"


def plain(value):
    """What JSON can say of an answer of either client."""
    return value.to_dict() if hasattr(value, "to_dict") else value


def dynamic(api, verb, kind, **arguments):
    """A call of the dynamic client, which looks the kind up in discovery."""
    resource = api.resources.get(api_version=f"{GROUP}/{VERSION}", kind=kind)
    return plain(getattr(resource, verb)(**arguments))


def custom(api, method, **arguments):
    """A call of CustomObjectsApi."""
    call = getattr(client.CustomObjectsApi(api.client), method)
    return plain(call(group=GROUP, version=VERSION, plural=PLURAL, **arguments))


def follow(api, namespace, count, ends=None, **arguments):
    """`count` events of a watch. `ends`: after how many seconds the server ends each
    request, of which the library is not told and goes on from what it saw last."""
    listing = client.CustomObjectsApi(api.client).list_namespaced_custom_object
    requests = []

    @functools.wraps(listing)
    def request(*positional, **named):
        requests.append(named.get("resource_version"))
        if ends is not None:
            named["timeout_seconds"] = ends
        return listing(*positional, **named)

    seen = []
    watcher = watch.Watch()
    stream = watcher.stream(request, GROUP, VERSION, namespace, PLURAL, **arguments)
    for event in stream:
        meta = event["raw_object"]["metadata"]
        seen.append([event["type"], meta["name"], meta["resourceVersion"]])
        # So that a test can change something now.
        print(json.dumps({"event": seen[-1]}), flush=True)
        if len(seen) == count:
            watcher.stop()
    return {"events": seen, "requests": requests}


def follow_dynamically(api, **arguments):
    """All events that a watch of the dynamic client has until it ends."""
    resource = api.resources.get(api_version=f"{GROUP}/{VERSION}", kind="TenantControlPlane")
    return [[e["type"], e["object"].kind, e["object"].metadata.name] for e in resource.watch(**arguments)]


DEEDS = {"dynamic": dynamic, "custom": custom, "follow": follow, "followDynamically": follow_dynamically}


def main():
    api = DynamicClient(config.new_client_from_config(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": DEEDS[request.pop("do")](api, **request)}
        except ApiException as error:
            body = error.body.decode() if isinstance(error.body, bytes) else error.body
            answer = {
                "exception": type(error).__name__,
                "code": error.status,
                "reason": error.reason,
                "status": json.loads(body) if body else None,
            }
        print(json.dumps(answer), flush=True)


main()
