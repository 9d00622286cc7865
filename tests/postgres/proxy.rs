//! A proxy that cuts a connection in the middle of a commit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// When the connection is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Never = 0,
    /// The server never sees the commit.
    BeforeCommit = 1,
    /// The server has committed, and its answer is lost.
    AfterCommit = 2,
    /// The commit stays on its way, and the connection open.
    Hang = 3,
}

/// Forwards to a port. It ends with the process; every connection is a pair of threads.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicU8,
    cuts: AtomicU32,
}

impl Proxy {
    pub fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                forward(client, server, shared.clone());
            }
        });
        Proxy { port, state }
    }

    pub fn cut(&self, cut: Cut) {
        self.state.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Commits that were cut so far.
    pub fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

/// The text of the query, and the server's answer to it; with the zero byte at its end.
const COMMIT: &[u8] = b"COMMIT\0";

fn forward(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let swallow = Arc::new(AtomicBool::new(false));
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_client) = (server, client);
    let swallowing = swallow.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut buffer) {
            // The text of a simple query ends with a zero byte; the client sends nothing with it.
            let commits = contains_commit(&buffer[..length]);
            let cut = if commits { state.cut.load(Ordering::SeqCst) } else { Cut::Never as u8 };
            if cut != Cut::Never as u8 {
                state.cuts.fetch_add(1, Ordering::SeqCst);
            }
            match cut {
                cut if cut == Cut::BeforeCommit as u8 => break,
                cut if cut == Cut::AfterCommit as u8 => swallowing.store(true, Ordering::SeqCst),
                cut if cut == Cut::Hang as u8 => continue,
                _ => {}
            }
            if to_server.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !swallowing.load(Ordering::SeqCst) {
            let _ = from_client.shutdown(Shutdown::Both);
            let _ = to_server.shutdown(Shutdown::Both);
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        // Answers to what came before the commit may still be on their way, and an answer may come in two pieces.
        let mut swallowed = Vec::new();
        while let Ok(length @ 1..) = from_server.read(&mut buffer) {
            if swallow.load(Ordering::SeqCst) {
                swallowed.extend_from_slice(&buffer[..length]);
                if contains_commit(&swallowed) {
                    break;
                }
            } else if to_client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = from_server.shutdown(Shutdown::Both);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

fn contains_commit(bytes: &[u8]) -> bool {
    bytes.windows(COMMIT.len()).any(|window| window == COMMIT)
}
