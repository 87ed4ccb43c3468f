//! Serves files over HTTP, each request in the PAG of the identity that its path begins with.
//!
//! ```text
//! serve 8080 alice=FILE:/run/server/alice bob=FILE:/run/server/bob
//! curl http://127.0.0.1:8080/alice/afs/example.test/user/alice/notes
//! ```
//!
//! A real server learns from its authentication who asks, never from a path.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use libpag::{Pag, Process, Seed};

/// Reads a file as the owner of a PAG. The file is closed before the thread leaves the PAG.
fn read(pags: &HashMap<String, Pag>, request: &str) -> io::Result<Vec<u8>> {
    let (name, path) = request.trim_start_matches('/').split_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    let pag = pags.get(name).ok_or(io::ErrorKind::PermissionDenied)?;
    // A thread that cannot enter is in no PAG, and its request is refused: it never reads as another identity.
    pag.within(|| std::fs::read(format!("/{path}"))).map_err(io::Error::other)?
}

/// Answers one request.
fn answer(pags: &HashMap<String, Pag>, mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
    // The rest of the request's head.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match read(pags, request.split(' ').nth(1).unwrap_or_default()) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("403 Forbidden", format!("{error}\n").into_bytes()),
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("usage: serve PORT NAME=CCACHE...")?.parse()?;
    let process = Process::open()?;
    let mut pags = HashMap::new();
    for argument in arguments {
        let (name, ccache) = argument.split_once('=').ok_or("usage: serve PORT NAME=CCACHE...")?;
        pags.insert(name.to_owned(), process.create(&Seed::ccache(ccache))?);
    }
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // Threads are started here, outside of all PAGs: they are born where this thread is.
    std::thread::scope(|threads| {
        for stream in listener.incoming().flatten() {
            let pags = &pags;
            threads.spawn(move || drop(answer(pags, stream)));
        }
    });
    Ok(())
}
