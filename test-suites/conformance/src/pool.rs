//! Runs tests, as many at once as asked for, each in a child process, and gathers their suites in order.
//!
//! Vector files go to children that stay for file after file (`worker`); a machine has a child of its own (`guest`). A child
//! that crashes or falls silent costs its case, which is reported, and nothing else. Called by the app.

use crate::child::How;
use crate::guest::{Children, GuestTest, Host};
use crate::report::{Detail, Report, Suite};
use crate::suite::Options;
use crate::worker::{Answer, Job};
use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use umbra_machine::config::Engine;

/// A child that says nothing for so long hangs: longer than any case's own limits.
const SILENCE: Duration = Duration::from_secs(90);
/// So many crashes in one file are enough to know.
const MOST_CRASHES: usize = 50;

/// Something to run.
#[derive(Clone, Debug)]
pub enum Task {
    /// A vector file on an engine.
    Vectors {
        /// The file.
        file: PathBuf,
        /// The engine.
        engine: Engine,
        /// What is put behind the suite's name.
        label: Option<String>,
    },
    /// A machine.
    Guest(Box<GuestTest>),
    /// A file that cannot be read: only to be reported.
    Refused {
        /// The suite's name.
        suite: String,
        /// What is wrong, with file and position.
        sentence: String,
    },
}

/// What somebody who waits is told. Called from several threads.
pub trait Progress: Sync {
    /// This begins.
    fn begun(&self, name: &str);
    /// A case of a file was run.
    fn case(&self);
    /// This is done.
    fn done(&self, suite: &Suite);
}

/// How tests are run.
#[derive(Clone, Debug)]
pub struct Pool<'a> {
    /// The program whose `run` and `worker` the children are.
    pub program: &'a Path,
    /// Children at once.
    pub jobs: usize,
    /// What of vector files.
    pub options: &'a Options,
    /// The processor's model for vectors.
    pub model: &'a str,
    /// Where machines' logs go.
    pub logs: Option<&'a Path>,
    /// Who runs machines, if not a child each.
    pub guests: Option<&'a dyn Host>,
}

impl Pool<'_> {
    /// Runs everything.
    pub fn run(&self, tasks: &[Task], progress: &dyn Progress) -> Report {
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Suite)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, tasks.len().max(1)) {
                scope.spawn(|| {
                    let mut worker = None;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(task) = tasks.get(number) else { break };
                        let suite = self.one(task, &mut worker, progress);
                        progress.done(&suite);
                        done.lock().push((number, suite));
                    }
                });
            }
        });
        let mut done = done.into_inner();
        done.sort_by_key(|(number, _)| *number);
        let mut report = Report::default();
        for (_, suite) in done.into_iter().filter(|(_, suite)| suite.counts.total() > 0) {
            report.merge(Report { suites: vec![suite] });
        }
        report
    }

    fn one(&self, task: &Task, worker: &mut Option<Worker>, progress: &dyn Progress) -> Suite {
        match task {
            Task::Refused { suite, sentence } => Suite::refused(suite, sentence),
            Task::Guest(test) => {
                progress.begun(&test.full_name());
                let started = Instant::now();
                let mut suite = Suite::new(&test.suite);
                let children = Children(self.program);
                let host = self.guests.unwrap_or(&children);
                suite.record_in(test.family, test.run(host, self.logs), Detail::EveryCase);
                suite.seconds = started.elapsed().as_secs_f64();
                suite
            }
            Task::Vectors { file, engine, label } => {
                let options = Options { label: label.clone(), ..self.options.clone() };
                let name = options.suite_name(file);
                progress.begun(&name);
                let (model, crashed) = (self.model.to_owned(), Vec::new());
                let mut job = Job { file: file.clone(), model, engine: *engine, options, crashed };
                loop {
                    match self.attempt(&job, worker, progress) {
                        Ok(Answer::Done(suite)) => return *suite,
                        Ok(Answer::Refused(sentence)) => return Suite::refused(name, sentence),
                        Ok(Answer::Begin(_)) => {}
                        Err(Lost { case: Some(case), how }) if job.crashed.len() < MOST_CRASHES => {
                            job.crashed.push((case, how));
                        }
                        Err(Lost { how, .. }) => {
                            let what = format!("{}: {how}; the file is given up", file.display());
                            return Suite::refused(name, what);
                        }
                    }
                }
            }
        }
    }

    /// Gives a job to a child and listens until it is done. A child that is lost is not used again.
    fn attempt(&self, job: &Job, kept: &mut Option<Worker>, progress: &dyn Progress) -> Result<Answer, Lost> {
        let mut worker = match kept.take() {
            Some(worker) => worker,
            None => Worker::start(self.program)
                .map_err(|error| Lost { case: None, how: format!("cannot start a child: {error}") })?,
        };
        let mut case = None;
        if worker.give(job).is_err() {
            return Err(Lost { case, how: worker.end().text() });
        }
        loop {
            match worker.answers.recv_timeout(SILENCE) {
                Ok(Answer::Begin(number)) => {
                    case = Some(number);
                    progress.case();
                }
                Ok(answer) => {
                    *kept = Some(worker);
                    return Ok(answer);
                }
                Err(RecvTimeoutError::Timeout) => {
                    worker.end();
                    let how = format!("the process did nothing for {} s and was ended", SILENCE.as_secs());
                    return Err(Lost { case, how });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Lost { case, how: worker.end().text() }),
            }
        }
    }
}

/// A child that is gone: the case that it ran, and how it went.
struct Lost {
    case: Option<u64>,
    how: String,
}

/// A child that runs vectors.
struct Worker {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: Receiver<Answer>,
}

impl Worker {
    fn start(program: &Path) -> std::io::Result<Worker> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (send, answers) = channel();
        if let Some(out) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(out);
                let mut line = String::new();
                // A line that is not whole is the last word of one who died.
                while lines.read_line(&mut line).is_ok_and(|count| count > 0) && line.ends_with('\n') {
                    let Some(answer) = Answer::parse(line.trim_end()) else { break };
                    if send.send(answer).is_err() {
                        break;
                    }
                    line.clear();
                }
            });
        }
        let jobs = child.stdin.take();
        Ok(Worker { child, jobs, answers })
    }
    fn give(&mut self, job: &Job) -> std::io::Result<()> {
        let line = serde_json::to_string(job).map_err(std::io::Error::other)?;
        let Some(jobs) = &mut self.jobs else { return Err(std::io::ErrorKind::BrokenPipe.into()) };
        writeln!(jobs, "{line}").and_then(|()| jobs.flush())
    }
    /// Makes sure that it is gone; tells how it went.
    fn end(&mut self) -> How {
        self.jobs = None;
        // One that closed its pipe is about to end; one that hangs is made to.
        for _ in 0..100 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return How::of(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        How::TimedOut
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}
