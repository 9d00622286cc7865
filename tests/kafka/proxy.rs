//! Between a client and a broker: passes requests on until it is told to lose something.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Kafka's number of the request that ends a transaction.
const END_TXN: i16 = 26;

/// What becomes of a request to end a transaction, and of everything after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Loss {
    /// Nothing is lost.
    None = 0,
    /// The broker gets it; its answer never comes.
    Answer = 1,
    /// The broker never gets it.
    Request = 2,
    /// It has happened: nothing passes any more.
    Cut = 3,
}

/// A proxy of one broker.
pub struct Proxy {
    loss: Arc<AtomicU8>,
}

impl Proxy {
    /// Listens, and passes on to a port of this machine.
    pub fn start(listener: TcpListener, to: u16) -> Proxy {
        let loss = Arc::new(AtomicU8::new(Loss::None as u8));
        let shared = loss.clone();
        std::thread::Builder::new()
            .spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    let loss = shared.clone();
                    let Ok(broker) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                    let (answers, back) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
                    let muted = loss.clone();
                    std::thread::Builder::new().spawn(move || pass(client, broker, &loss, true)).unwrap();
                    std::thread::Builder::new().spawn(move || pass(answers, back, &muted, false)).unwrap();
                }
            })
            .unwrap();
        Proxy { loss }
    }

    pub fn lose(&self, loss: Loss) {
        self.loss.store(loss as u8, Ordering::SeqCst);
    }

    pub fn has_lost(&self) -> bool {
        self.loss.load(Ordering::SeqCst) == Loss::Cut as u8
    }
}

/// Passes frames of Kafka's protocol on: a length of four bytes, then as many.
fn pass(mut from: TcpStream, mut to: TcpStream, loss: &AtomicU8, requests: bool) {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        if from.read_exact(&mut length).is_err() {
            break;
        }
        frame.resize(u32::from_be_bytes(length) as usize, 0);
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        let now = loss.load(Ordering::SeqCst);
        if now == Loss::Cut as u8 {
            continue;
        }
        if requests && now != Loss::None as u8 && i16::from_be_bytes([frame[0], frame[1]]) == END_TXN {
            loss.store(Loss::Cut as u8, Ordering::SeqCst);
            if now == Loss::Request as u8 {
                continue;
            }
        }
        if to.write_all(&length).and_then(|()| to.write_all(&frame)).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
