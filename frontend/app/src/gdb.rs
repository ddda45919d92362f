//! `--gdb [HOST]:PORT[,x86-64|i386|i8086]`: waits for gdb before the first instruction, then serves it; when gdb detaches the
//! guest goes on, and gdb may come again.
//!
//! ```text
//! thread: accept, read ─► Event::GdbCame / GdbSays / GdbGone ─► session ─► protocol ─► target (the machine)
//! ```

mod registers;
mod target;

use crate::exit_status::Failure;
use crate::session::{Event, LOOK_AROUND, Pause, Session};
use crate::summary::End;
use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine as Protocol;
use gdbstub::stub::{DisconnectReason, GdbStub};
use registers::{Layout, Width};
use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use target::{Debuggee, Reason};
use umbra_machine::cpu::decode::CpuidFeature;

/// Where to listen, and the width if one is named.
fn parse(text: &str) -> Result<(std::net::SocketAddr, Option<Width>), Failure> {
    let bad = || Failure::input(format!("--gdb \"{text}\" is not [HOST]:PORT[,x86-64|i386|i8086]; try --gdb :1234"));
    let (address, width) = match text.split_once(',') {
        None => (text, None),
        Some((address, "x86-64")) => (address, Some(Width::Bits64)),
        Some((address, "i386")) => (address, Some(Width::Bits32)),
        Some((address, "i8086")) => (address, Some(Width::Bits16)),
        Some(_) => return Err(bad()),
    };
    let (host, port) = address.trim_start_matches("tcp:").rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let mut addresses = (host, port).to_socket_addrs().map_err(|_| bad())?;
    addresses.next().map(|address| (address, width)).ok_or_else(bad)
}

/// Checks `--gdb` before anything is built.
pub fn check(text: &str) -> Result<(), Failure> {
    parse(text).map(drop)
}

/// Runs the machine under a debugger to its end.
pub fn serve(session: &mut Session, address: &str) -> Result<End, Failure> {
    let (address, width) = parse(address)?;
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::host(format!("--gdb {address}: {error}; try another port")))?;
    let address = listener.local_addr().unwrap_or(address);
    eprintln!("umbra: waits for gdb; in gdb: target remote {address}");
    let (events, stop) = (session.events_to.clone(), session.stop.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(mut reader) = stream.try_clone() else { continue };
            let _ = stream.set_nodelay(true);
            let tell = |event| {
                let told = events.send(event).is_ok();
                stop.stop();
                told
            };
            if !tell(Event::GdbCame(stream)) {
                return;
            }
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if !tell(Event::GdbSays(bytes.get(..count).unwrap_or(&[]).to_vec())) {
                    return;
                }
            }
            tell(Event::GdbGone);
        }
    });
    let has_long_mode =
        session.machine.vcpus().first().is_some_and(|vcpu| vcpu.link.model.has_all(&[CpuidFeature::X64]));
    let width = width.unwrap_or(if has_long_mode { Width::Bits64 } else { Width::Bits32 });
    let mut debuggee = Debuggee::new(session, Layout::new(width));
    let mut first = true;
    loop {
        let stream = match debuggee.session.gdb.came.take() {
            Some(stream) => stream,
            None if first => match debuggee.session.take_events(Some(LOOK_AROUND)) {
                Some(end) => return Ok(end),
                None => continue,
            },
            None => match debuggee.session.advance() {
                Pause::Over(end) => return Ok(end),
                Pause::Debug(_) | Pause::Gdb => continue,
            },
        };
        first = false;
        debuggee.session.gdb.gone = false;
        let end = converse(&mut debuggee, stream);
        debuggee.forget();
        debuggee.session.gdb.bytes.clear();
        debuggee.session.gdb.gone = false;
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

type Talk<'a, 's> = Protocol<'a, Debuggee<'s>, TcpStream>;

/// Serves one connection; gives the end if the run ended with it, `None` if the guest goes on without gdb.
fn converse<'s>(debuggee: &mut Debuggee<'s>, stream: TcpStream) -> Option<End> {
    tracing::debug!(target: "gdb", "gdb has come");
    let mut talk: Talk<'_, 's> = match GdbStub::new(stream).run_state_machine(debuggee) {
        Ok(talk) => talk,
        Err(error) => return lost(&error),
    };
    loop {
        talk = match talk {
            Protocol::Idle(idle) => match debuggee.session.gdb.bytes.pop_front() {
                Some(byte) => match idle.incoming_data(debuggee, byte) {
                    Ok(talk) => talk,
                    Err(error) => return lost(&error),
                },
                None if debuggee.session.gdb.gone => return None,
                None => {
                    if let Some(end) = debuggee.session.take_events(Some(LOOK_AROUND)) {
                        return Some(end);
                    }
                    Protocol::Idle(idle)
                }
            },
            Protocol::Running(running) => {
                let next = match debuggee.session.gdb.bytes.pop_front() {
                    Some(byte) => running.incoming_data(debuggee, byte),
                    None if debuggee.session.gdb.gone => return None,
                    None => match debuggee.go() {
                        Some(reason) => {
                            tracing::debug!(target: "gdb", "stopped: {reason:?}");
                            running.report_stop(debuggee, reason)
                        }
                        None => Ok(Protocol::Running(running)),
                    },
                };
                match next {
                    Ok(talk) => talk,
                    Err(error) => return debuggee.end.take().or_else(|| lost(&error)),
                }
            }
            Protocol::CtrlCInterrupt(interrupt) => {
                let reason = Reason::SignalWithThread { tid: gdbstub::common::Tid::MIN, signal: Signal::SIGINT };
                match interrupt.interrupt_handled(debuggee, Some(reason)) {
                    Ok(talk) => talk,
                    Err(error) => return lost(&error),
                }
            }
            Protocol::Disconnected(over) => {
                let reason = over.get_reason();
                tracing::debug!(target: "gdb", "gdb has gone: {reason:?}");
                return match reason {
                    DisconnectReason::Kill => Some(End::Ended),
                    _ => debuggee.end.take(),
                };
            }
        };
    }
}

/// The connection broke: the guest goes on.
fn lost(error: &dyn std::fmt::Display) -> Option<End> {
    eprintln!("umbra: gdb: {error}; the guest goes on, try target remote again");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        #[rustfmt::skip]
        let good = [
            (":1234", 1234, None), ("127.0.0.1:1", 1, None), ("tcp::9", 9, None), (":7,i386", 7, Some(Width::Bits32)),
            (":7,i8086", 7, Some(Width::Bits16)), (":7,x86-64", 7, Some(Width::Bits64)),
        ];
        for (text, port, width) in good {
            let (address, named) = parse(text).unwrap();
            assert_eq!((address.port(), named), (port, width), "{text}");
        }
        for text in ["", "1234", ":", ":x", ":99999", ":1,arm"] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
