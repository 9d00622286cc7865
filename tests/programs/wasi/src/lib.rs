//! Asks WASI for what language runtimes ask before they start, and for what it must not give.

use pelton_sdk::prelude::*;

#[derive(Row)]
struct Asked<'a> {
    what: &'a str,
}

#[derive(Row)]
struct Told {
    told: String,
}

/// Asks one function of WASI.
#[transform]
fn ask(row: Asked<'_>) -> Told {
    #[cfg(target_arch = "wasm32")]
    return Told { told: guest::ask(row.what) };
    #[cfg(not(target_arch = "wasm32"))]
    Told { told: row.what.into() }
}

plugin!(ask);

#[cfg(target_arch = "wasm32")]
mod guest {
    wit_bindgen::generate!({
        inline: r#"
            package test:runtime;
            world runtime {
                import wasi:cli/environment@0.2.6;
                import wasi:cli/stdout@0.2.6;
                import wasi:cli/exit@0.2.6;
                import wasi:clocks/wall-clock@0.2.6;
                import wasi:clocks/monotonic-clock@0.2.6;
                import wasi:random/random@0.2.6;
                import wasi:filesystem/preopens@0.2.6;
                import wasi:sockets/tcp-create-socket@0.2.6;
            }
            package wasi:io@0.2.6 {
                interface poll {
                    resource pollable { block: func(); }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
                interface streams {
                    variant stream-error { last-operation-failed(u32), closed }
                    resource output-stream {
                        check-write: func() -> result<u64, stream-error>;
                        write: func(contents: list<u8>) -> result<_, stream-error>;
                        blocking-flush: func() -> result<_, stream-error>;
                    }
                }
            }
            package wasi:cli@0.2.6 {
                interface environment {
                    get-environment: func() -> list<tuple<string, string>>;
                    get-arguments: func() -> list<string>;
                }
                interface stdout {
                    use wasi:io/streams@0.2.6.{output-stream};
                    get-stdout: func() -> output-stream;
                }
                interface exit { exit: func(status: result); }
            }
            package wasi:clocks@0.2.6 {
                interface wall-clock {
                    record datetime { seconds: u64, nanoseconds: u32 }
                    now: func() -> datetime;
                }
                interface monotonic-clock {
                    use wasi:io/poll@0.2.6.{pollable};
                    now: func() -> u64;
                    subscribe-duration: func(when: u64) -> pollable;
                }
            }
            package wasi:random@0.2.6 { interface random { get-random-bytes: func(len: u64) -> list<u8>; } }
            package wasi:filesystem@0.2.6 {
                interface types { resource descriptor { sync: func(); } }
                interface preopens {
                    use types.{descriptor};
                    get-directories: func() -> list<tuple<descriptor, string>>;
                }
            }
            package wasi:sockets@0.2.6 {
                interface tcp-create-socket {
                    enum error-code { unknown, access-denied }
                    resource tcp-socket { hop-limit: func() -> u8; }
                    create-tcp-socket: func() -> result<tcp-socket, error-code>;
                }
            }
        "#,
        generate_all,
    });

    use wasi::cli::{environment, exit, stdout};
    use wasi::clocks::{monotonic_clock, wall_clock};

    pub fn ask(what: &str) -> String {
        match what {
            "environment" => format!("{:?} {:?}", environment::get_environment(), environment::get_arguments()),
            "wall" => format!("{:?}", wall_clock::now().seconds),
            "monotonic" => {
                let waited = monotonic_clock::subscribe_duration(1 << 60);
                wasi::io::poll::poll(&[&waited]);
                waited.block();
                format!("{}", monotonic_clock::now())
            }
            "random" => format!("{:?}", wasi::random::random::get_random_bytes(4)),
            "folders" => format!("{}", wasi::filesystem::preopens::get_directories().len()),
            "socket" => format!("{:?}", wasi::sockets::tcp_create_socket::create_tcp_socket().map(|_| "a socket")),
            "print" => {
                let out = stdout::get_stdout();
                let most = out.check_write().expect("it takes some");
                out.write(b"half a line, ").and_then(|()| out.write(b"and the rest\n")).expect("it takes this");
                out.blocking_flush().expect("it takes that");
                format!("{}", most > 0)
            }
            _ => {
                exit::exit(Err(()));
                "it went on".into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn natively_there_is_no_wasi() {
        assert_eq!(super::ask(super::Asked { what: "x" }).told, "x");
    }
}
