#!/usr/bin/python3
"""Serves files over HTTP, each request in the PAG of the identity that its path begins with.

    serve.py 8080 alice=FILE:/run/server/alice bob=FILE:/run/server/bob
    curl http://127.0.0.1:8080/alice/afs/example.test/user/alice/notes

A real server learns from its authentication who asks, never from a path."""
import contextlib, ctypes, http.server, sys

class Seed(ctypes.Structure):  # struct pag_seed of pag.h
    _fields_ = [("size", ctypes.c_size_t), ("ccache", ctypes.c_char_p), ("keytab", ctypes.c_char_p),
                ("principal", ctypes.c_char_p), ("cells", ctypes.POINTER(ctypes.c_char_p)),
                ("timeout_ms", ctypes.c_uint)]

lib = ctypes.CDLL("libpag.so.0")
lib.pag_last_error.restype = ctypes.c_char_p
process, pags = ctypes.c_void_p(), {}

def must(code):
    if code != 0:
        raise PermissionError(lib.pag_last_error().decode())

@contextlib.contextmanager
def inside(pag):
    must(lib.pag_enter(pag))
    try:
        yield
    finally:
        must(lib.pag_leave(process))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, _, path = self.path[1:].partition("/")
        try:
            with inside(pags[name]), open("/" + path, "rb") as file:  # closed before the PAG is left
                status, body = 200, file.read()
        except (KeyError, OSError) as error:
            status, body = 403, f"{error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

must(lib.pag_process_open(ctypes.byref(process), 0))
for argument in sys.argv[2:]:
    name, _, ccache = argument.partition("=")
    seed = Seed(size=ctypes.sizeof(Seed), ccache=ccache.encode())
    pags[name] = ctypes.c_void_p()
    must(lib.pag_create(process, ctypes.byref(seed), ctypes.byref(pags[name])))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
