//! `--control SOCKET`: a running machine that other processes may look at, and `umbra inspect … --connect SOCKET`, which does.
//!
//! One question a connection, as a line of JSON ([`Question`]); the answer is a line of JSON, too ([`Answer`]). The machine stands
//! still while it is looked at. Only the owner of the process can connect.

use super::heat::HeatMap;
use super::look::{Look, look};
use crate::cli::{INSPECTIONS, InspectArgs, InspectWhat};
use crate::exit_status::{ExitStatus, Failure};
use crate::session::{Event, Session};
use crossbeam::channel::{Sender, bounded};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use umbra_machine::StopHandle;

/// The longest question.
const MOST_BYTES: u64 = 1 << 16;
/// The shortest time between two looks of somebody who follows.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// Characters, across and down, of a map that is drawn as text.
const ROOM: (usize, usize) = (128, 40);
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// What somebody wants to see.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// A word of `umbra inspect`.
    what: String,
    /// Linear addresses to explain.
    #[serde(default)]
    at: Vec<u64>,
    /// Where the machine is to draw a map of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<PathBuf>,
    /// It is looked at again and again: what was used is found out by each look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    /// A map as text, at most so many characters wide and high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocks: Option<(usize, usize)>,
}

/// The look, or a sentence.
type Answer = Result<Look, String>;

/// The socket of a running machine; gone when dropped.
pub struct ControlSocket(PathBuf);

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Whoever removed it before us has done our work.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens the socket; questions are answered by the session's own thread.
pub fn listen(session: &Session, path: &Path) -> Result<ControlSocket, Failure> {
    let failed = |error: std::io::Error| {
        Failure::host(format!("--control {}: {error}; try a path in a folder of your own", path.display()))
    };
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_ok() {
        return Err(Failure::host(format!(
            "--control {}: another machine answers there; try another path",
            path.display()
        )));
    }
    if is_socket {
        // Nobody answers: it was left behind.
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let socket = ControlSocket(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (events, stop) = (session.events_to.clone(), session.stop.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (events, stop) = (events.clone(), stop.clone());
            std::thread::spawn(move || {
                if let Err(error) = answer(stream, &events, &stop) {
                    tracing::debug!(target: "control", "a connection broke: {error}");
                }
            });
        }
    });
    Ok(socket)
}

fn answer(stream: UnixStream, events: &Sender<Event>, stop: &StopHandle) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(MOST_BYTES)).read_line(&mut line)?;
    let answer: Answer = match serde_json::from_str(&line) {
        Ok(question) => ask(question, events, stop),
        Err(error) => Err(format!("the question is not understood ({error}); try umbra inspect of the same version")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())
}

/// Has the session look between two steps of its own.
fn ask(question: Question, events: &Sender<Event>, stop: &StopHandle) -> Answer {
    let Some(&(_, what)) = INSPECTIONS.iter().find(|(name, _)| *name == question.what) else {
        return Err(format!("there is nothing called \"{}\" to see", question.what));
    };
    let (reply, seen) = bounded(1);
    let call = move |session: &mut Session| {
        if question.again && what == InspectWhat::Heat {
            session.machine.memory().age_pages();
        }
        let mut answer = Ok(look(&mut session.machine, what, &question.at));
        if let (Some(size), Ok(look)) = (question.blocks, &mut answer) {
            look.text.insert_str(0, &HeatMap::of(&session.machine).blocks(size));
        }
        if let Some(path) = &question.map
            && let Err(failure) = HeatMap::of(&session.machine).save(path)
        {
            answer = Err(failure.to_string());
        }
        // Whoever asked may be gone.
        let _ = reply.send(answer);
    };
    let over = || "the machine is over".to_owned();
    events.send(Event::Call(Box::new(call))).map_err(|_| over())?;
    stop.stop();
    seen.recv().map_err(|_| over())?
}

/// `umbra inspect … --connect SOCKET`.
pub fn connect(args: &InspectArgs, path: &Path) -> Result<ExitStatus, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::host(format!(
            "--connect {}: {error}; try the path that a machine was given as --control",
            path.display()
        ))
    };
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|error| failed(&error));
    let draws_here = args.follow.is_some() && args.what == InspectWhat::Heat && args.output.is_none() && !args.run.json;
    let question = Question {
        what: args.what_name().to_owned(),
        at: args.run.at.clone(),
        map: args.output.as_ref().map(absolute).transpose()?,
        again: args.follow.is_some(),
        blocks: draws_here.then_some(ROOM),
    };
    let mut text = serde_json::to_string(&question).map_err(|error| failed(&error))?;
    text.push('\n');
    let ask = || -> Result<Look, Failure> {
        let mut stream = UnixStream::connect(path).map_err(|error| failed(&error))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| failed(&error))?;
        stream.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).map_err(|error| failed(&error))?;
        let answer: Answer = serde_json::from_str(&reply).map_err(|error| failed(&error))?;
        answer.map_err(Failure::host)
    };
    let mut status = args.show(&ask()?);
    if let Some(span) = args.follow {
        let pause = span.0.max(LEAST_PAUSE);
        loop {
            std::thread::sleep(pause);
            // The machine is over when nobody answers any more.
            let Ok(look) = ask() else { break };
            if draws_here && std::io::stdout().is_terminal() {
                print!("\x1b[H\x1b[2J");
            }
            status = args.show(&look);
        }
    }
    Ok(status)
}
