//! What the runs came to: a row for each kernel, medians, how many times the first column is faster than each other one, and
//! geometric means of that by family.

use super::measure::{Facts, Kernel, Run};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// All runs of one emulator (or of the host itself).
pub struct Column {
    /// Its name.
    pub name: String,
    /// In their order.
    pub runs: Vec<Run>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `boot`, a kernel of guestbench, or `whole run`.
    pub name: String,
    /// CPU seconds by column, the median of all runs.
    pub seconds: Vec<Option<f64>>,
    /// How many times the first column is faster than each of the others.
    pub times_faster: Vec<Option<f64>>,
    /// All came to the same checksum.
    pub same_result: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The guest's kernel.
    pub kernel: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// How many runs each column's medians are of.
    pub runs: usize,
    /// The lines.
    pub rows: Vec<Row>,
    /// MiB resident beside the touched guest memory at the end, by column: the median.
    pub overhead_mib: Vec<Option<f64>>,
    /// Millions of guest instructions that the JIT lifts and emits in a second of CPU time, by column: the median.
    pub emitted_millions: Vec<Option<f64>>,
    /// Geometric means of `times_faster` by family, and over all kernels.
    pub means: BTreeMap<String, Vec<Option<f64>>>,
}

/// The median; `None` if there is nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn row(name: &str, columns: &[Column], same_result: bool, pick: impl Fn(&Run) -> Option<f64>) -> Row {
    let middle = |column: &Column| median(column.runs.iter().filter_map(&pick).collect());
    let seconds: Vec<Option<f64>> = columns.iter().map(middle).collect();
    let first = seconds.first().copied().flatten().filter(|first| *first > 0.0);
    let times = |other: &Option<f64>| other.filter(|other| *other > 0.0).zip(first).map(|(other, first)| other / first);
    let times_faster = seconds.iter().skip(1).map(times).collect();
    Row { name: name.to_owned(), seconds, times_faster, same_result }
}

impl Table {
    /// The table of these runs.
    pub fn new(kernel: &str, columns: &[Column]) -> Table {
        let runs: Vec<&Run> = columns.iter().flat_map(|column| &column.runs).collect();
        let mut rows = vec![row("boot", columns, true, |run| run.boot_cpu)];
        let mut seen = BTreeSet::new();
        let names = runs.iter().flat_map(|run| &run.kernels).map(|kernel| kernel.name.clone());
        for name in names.filter(|name| seen.insert(name.clone())) {
            fn find<'r>(run: &'r Run, name: &str) -> Option<&'r Kernel> {
                run.kernels.iter().find(|kernel| kernel.name == name)
            }
            let sums: BTreeSet<&str> =
                runs.iter().filter_map(|run| find(run, &name)).map(|kernel| kernel.sum.as_str()).collect();
            rows.push(row(&name, columns, sums.len() == 1, |run| find(run, &name).map(|kernel| kernel.cpu)));
        }
        rows.push(row("whole run", columns, true, |run| run.total_cpu));
        rows.retain(|row| row.seconds.iter().any(Option::is_some));
        let others = columns.len().saturating_sub(1);
        let mut logs: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
        for row in &rows {
            let Some((family, _)) = row.name.split_once('.') else { continue };
            for group in [family, "all"] {
                let group = logs.entry(group.to_owned()).or_insert_with(|| vec![Vec::new(); others]);
                for (times, logs) in row.times_faster.iter().zip(group) {
                    logs.extend(times.map(f64::ln));
                }
            }
        }
        let mean = |logs: Vec<f64>| (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp());
        let means = logs.into_iter().map(|(group, columns)| (group, columns.into_iter().map(mean).collect())).collect();
        let facts = |pick: fn(&Facts) -> Option<f64>| -> Vec<Option<f64>> {
            let of =
                |column: &Column| median(column.runs.iter().filter_map(|run| pick(run.summary.as_ref()?)).collect());
            columns.iter().map(of).collect()
        };
        let overhead_mib = facts(|facts| Some(facts.overhead_bytes? / f64::from(1 << 20)));
        let emitted_millions = facts(|facts| Some(facts.emitted_per_second? / 1e6));
        let most = columns.iter().map(|column| column.runs.len()).max().unwrap_or(0);
        let columns = columns.iter().map(|column| column.name.clone()).collect();
        Table { kernel: kernel.to_owned(), columns, runs: most, rows, overhead_mib, emitted_millions, means }
    }

    /// Whether each kernel came to the same checksum everywhere.
    pub fn same_results(&self) -> bool {
        self.rows.iter().all(|row| row.same_result)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{:<16}", self.kernel);
        self.columns.iter().for_each(|name| text += &format!(" {:>10}", format!("{name} s")));
        self.columns.iter().skip(1).for_each(|name| text += &format!(" {:>10}", format!("{name}/{}", self.columns[0])));
        text.push('\n');
        let times = |value: &Option<f64>| format!(" {:>10}", value.map_or("-".to_owned(), |v| format!("{v:.2} x")));
        for row in &self.rows {
            text += &format!("{:<16}", row.name);
            for value in &row.seconds {
                text += &format!(" {:>10}", value.map_or("-".to_owned(), |value| format!("{value:.3}")));
            }
            text.extend(row.times_faster.iter().map(times));
            text += if row.same_result { "\n" } else { "  RESULTS DIFFER\n" };
        }
        for (group, values) in &self.means {
            text += &format!("{:<16}", format!("mean of {group}"));
            text += &" ".repeat(11 * self.columns.len());
            text.extend(values.iter().map(times));
            text.push('\n');
        }
        for (name, values) in [("own memory MiB", &self.overhead_mib), ("emission M/s", &self.emitted_millions)] {
            if values.iter().any(Option::is_some) {
                text += &format!("{name:<16}");
                let shown =
                    |value: &Option<f64>| format!(" {:>10}", value.map_or("-".to_owned(), |v| format!("{v:.1}")));
                text.extend(values.iter().map(shown));
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn run(boot: f64, cpu: f64, sum: &str) -> Run {
        let kernel = Kernel { name: "int.crc".to_owned(), cpu, sum: sum.to_owned() };
        let facts = Facts { overhead_bytes: Some(cpu * 1048576.0), emitted_per_second: None };
        Run { boot_cpu: Some(boot), kernels: vec![kernel], total_cpu: Some(9.0), summary: Some(facts), done: true }
    }

    pub fn sample() -> Table {
        let column = |name: &str, runs| Column { name: name.to_owned(), runs };
        Table::new(
            "cloud",
            &[
                column("jit", vec![run(1.0, 2.0, "a"), run(3.0, 4.0, "a"), run(2.0, 9.0, "a")]),
                column("qemu", vec![run(4.0, 8.0, "b")]),
                column("native", vec![run(1.0, 1.0, "a")]),
            ],
        )
    }

    #[test]
    fn medians_ratios_and_means() {
        let table = sample();
        assert_eq!(table.rows[0].seconds, [Some(2.0), Some(4.0), Some(1.0)]);
        assert_eq!(table.rows[1].times_faster, [Some(2.0), Some(0.25)]);
        assert_eq!((table.overhead_mib[0], table.emitted_millions[0]), (Some(4.0), None));
        assert!(!table.rows[1].same_result && !table.same_results());
        let rounded: Vec<f64> = table.means["int"].iter().flatten().map(|mean| (mean * 100.0).round()).collect();
        assert_eq!(rounded, [200.0, 25.0]);
        assert!(table.text().contains("RESULTS DIFFER") && table.text().contains("qemu/jit"));
    }
}
