//! A map of guest RAM: a dot for each page, coloured by what it is, the brighter the later it was used.

use crate::exit_status::Failure;
use crate::picture;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use umbra_machine::Machine;
use umbra_machine::display::Frame;
use umbra_machine::mmu::{Linear, PageUse, PageView, PhysPage};

/// What a page is, the strongest first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Owner {
    Video,
    Table,
    Descriptors,
    Out,
    Shared,
    Code,
    Dma,
    Data,
    Untouched,
}

/// Owner, name, colour where the page was used last.
#[rustfmt::skip]
const OWNERS: [(Owner, &str, u32); 9] = [
    (Owner::Video,       "framebuffer", 0x40_D8D8),
    (Owner::Table,       "page tables", 0xE0_4040),
    (Owner::Descriptors, "descriptors", 0xE0_40E0),
    (Owner::Out,         "swapped out", 0xC0_9030),
    (Owner::Shared,      "shared",      0xF0_F080),
    (Owner::Code,        "code",        0x40_C040),
    (Owner::Dma,         "DMA",         0xF0_9860),
    (Owner::Data,        "data",        0x50_90F0),
    (Owner::Untouched,   "untouched",   0x30_3030),
];

/// Looks ago, at most, that a page was found in use; the brightness of its colour in percent; what the legend says.
#[rustfmt::skip]
const AGES: [(Option<u8>, u32, &str); 4] = [
    (Some(0),  100, "now"),
    (Some(3),   72, "1–3 looks ago"),
    (Some(254), 48, "earlier"),
    (None,      30, "not seen in use"),
];

/// Where the ages come from.
const NOTE: &str = "A page is used while monitor entries lead to it; a look takes them away (the reclaimer's where memory is paged, else --follow's \
                    or a panel's). DMA is what bus masters were seen to use since somebody looks.\n";

/// Dots in a row: 1 MiB.
const COLUMNS: usize = 256;
/// What stands for a page that is no RAM.
const NOTHING: u32 = 0;

/// The map.
pub struct HeatMap {
    /// Each page with its owner and its place in [`AGES`].
    pages: Vec<(PhysPage, Owner, u8)>,
}

/// Which of [`AGES`] an age is.
fn age_class(age: Option<u8>) -> u8 {
    let most = |(most, ..): &(Option<u8>, u32, &str)| most.is_some_and(|most| age.is_some_and(|age| age <= most));
    AGES.iter().position(most).unwrap_or(AGES.len() - 1) as u8
}

fn color(owner: Owner, age: usize) -> u32 {
    let full = OWNERS.iter().find(|known| known.0 == owner).map_or(0, |known| known.2);
    let percent = match owner {
        Owner::Out | Owner::Untouched => 100,
        _ => AGES[age].1,
    };
    [16, 8, 0].into_iter().fold(0, |color, shift| (color << 8) | ((full >> shift & 0xFF) * percent / 100))
}

impl HeatMap {
    /// The map of a machine that stands still.
    pub fn of(machine: &Machine) -> HeatMap {
        let mut descriptors = Vec::new();
        for vcpu in machine.vcpus() {
            let state = &vcpu.state;
            let tables = [(state.gdtr.base, state.gdtr.limit.into()), (state.idtr.base, state.idtr.limit.into())];
            let ldt = (state.ldtr.base, state.ldtr.limit);
            for (base, limit) in tables.into_iter().chain(state.ldtr.usable().then_some(ldt)) {
                for linear in [base, base.wrapping_add(limit.into())] {
                    descriptors.extend(vcpu.link.mmu.peek_phys(Linear(linear)).map(|phys| phys.page()));
                }
            }
        }
        let owner = |PageView { page, uses, age }: PageView| {
            let owner = if uses.is(PageUse::VIDEO) {
                Owner::Video
            } else if uses.is(PageUse::TABLE) {
                Owner::Table
            } else if uses.is(PageUse::OUT) {
                Owner::Out
            } else if uses.is(PageUse::DESCRIPTORS) || descriptors.contains(&page) {
                Owner::Descriptors
            } else if uses.is(PageUse::SHARED) {
                Owner::Shared
            } else if uses.is(PageUse::CODE) {
                Owner::Code
            } else if uses.is(PageUse::DMA) {
                Owner::Dma
            } else if uses.is(PageUse::RESIDENT) {
                Owner::Data
            } else {
                Owner::Untouched
            };
            (page, owner, age_class(age))
        };
        HeatMap { pages: machine.memory().page_uses().into_iter().map(owner).collect() }
    }
    /// How many pages of each owner have each age.
    fn counts(&self) -> [[usize; AGES.len()]; OWNERS.len()] {
        let mut counts = [[0; AGES.len()]; OWNERS.len()];
        for &(_, owner, age) in &self.pages {
            if let Some(count) = counts[owner as usize].get_mut(usize::from(age)) {
                *count += 1;
            }
        }
        counts
    }
    /// What the colours mean, and how many pages have them.
    pub fn legend(&self) -> String {
        let mut text = format!("{} pages of 4 KiB; used:\n{:14}", self.pages.len(), "");
        // Writing to a string does not fail.
        for (.., name) in AGES {
            let _ = write!(text, "{name:>16}");
        }
        text.push('\n');
        let counts = self.counts();
        for (owner, name, ..) in OWNERS {
            let _ = write!(text, "{name:14}");
            for count in counts[owner as usize] {
                let _ = write!(text, "{count:>16}");
            }
            text.push('\n');
        }
        text + NOTE
    }
    /// The same for programs.
    pub fn data(&self) -> Value {
        let counts = self.counts();
        let owners: serde_json::Map<String, Value> = (OWNERS.iter())
            .map(|&(owner, name, ..)| {
                let counts = counts[owner as usize];
                let idle: usize = counts[1..].iter().sum();
                (name.to_owned(), json!({ "in_use": counts[0], "not_in_use": idle, "by_age": counts }))
            })
            .collect();
        let ages: Vec<&str> = AGES.iter().map(|(.., name)| *name).collect();
        json!({ "pages": self.pages.len(), "owners": owners, "ages": ages })
    }
    /// The map as a picture, a pixel for each page.
    pub fn frame(&self) -> Frame {
        let rows = self.rows();
        Frame { width: COLUMNS, height: rows.len(), pixels: rows.iter().flat_map(|(_, colors)| *colors).collect() }
    }
    /// The map as text for a terminal with colours, at most so many cells wide and high: two dots, one above the other, a cell.
    pub fn blocks(&self, (columns, lines): (usize, usize)) -> String {
        let frame = self.frame();
        let (width, height) = (COLUMNS.min(columns).max(1), frame.height.min(lines.saturating_mul(2)).max(1));
        let dot = |x: usize, y: usize| {
            let (x, y) = (x * COLUMNS / width, y * frame.height / height);
            frame.line(y.min(frame.height.saturating_sub(1))).get(x).copied().unwrap_or(NOTHING).to_be_bytes()
        };
        let mut text = String::new();
        for y in 0..height.div_ceil(2) {
            for x in 0..width {
                let ([_, a, b, c], [_, d, e, f]) = (dot(x, 2 * y), dot(x, 2 * y + 1));
                let _ = write!(text, "\x1b[38;2;{a};{b};{c}m\x1b[48;2;{d};{e};{f}m▀");
            }
            text.push_str("\x1b[0m\n");
        }
        text
    }
    /// Rows of dots, those that hold no RAM left out: the address of the first page, and the colours.
    fn rows(&self) -> Vec<(u64, [u32; COLUMNS])> {
        let mut rows: Vec<(u64, [u32; COLUMNS])> = Vec::new();
        for &(page, owner, age) in &self.pages {
            let (first, column) = (page.0 & !(COLUMNS as u64 - 1), (page.0 % COLUMNS as u64) as usize);
            if rows.last().is_none_or(|row| row.0 != first) {
                rows.push((first, [NOTHING; COLUMNS]));
            }
            if let Some((_, colors)) = rows.last_mut() {
                colors[column] = color(owner, age.into());
            }
        }
        rows
    }
    /// Writes the map as a picture: `.svg` with a legend, or PNG, a pixel for each page.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        if path.extension().is_some_and(|ending| ending == "svg") {
            return std::fs::write(path, self.svg())
                .map_err(|error| Failure::host(format!("{}: {error}; try another path for the map", path.display())));
        }
        picture::save(&self.frame(), path)
    }
    fn svg(&self) -> String {
        const DOT: usize = 3;
        const LEGEND: usize = 24 * OWNERS.len() + 44;
        let (rows, counts) = (self.rows(), self.counts());
        let (width, height) = (COLUMNS * DOT + 110, rows.len() * DOT + LEGEND);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#000\"/>\n"
        );
        for (number, (first, colors)) in rows.iter().enumerate() {
            let y = number * DOT;
            let mut column = 0;
            for run in colors.chunk_by(|a, b| a == b) {
                if run[0] != NOTHING {
                    let (x, wide) = (column * DOT, run.len() * DOT);
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{DOT}\" fill=\"#{:06x}\"/>",
                        run[0]
                    );
                }
                column += run.len();
            }
            if number % 16 == 0 {
                let (x, y) = (COLUMNS * DOT + 8, y + 10);
                let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"#aaa\">{:#x}</text>", first << 12);
            }
        }
        for (number, (owner, name, _)) in OWNERS.into_iter().enumerate() {
            let y = rows.len() * DOT + 12 + 24 * number;
            for age in 0..AGES.len() {
                let (x, color) = (8 + 16 * age, color(owner, age));
                let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"#{color:06x}\"/>");
            }
            let counts = counts[owner as usize].map(|count| count.to_string()).join(", ");
            let _ = writeln!(svg, "<text x=\"78\" y=\"{}\" fill=\"#ddd\">{name}: {counts} pages</text>", y + 12);
        }
        let y = rows.len() * DOT + 24 * OWNERS.len() + 26;
        let ages = AGES.map(|(.., name)| name).join(" · ");
        let _ = writeln!(svg, "<text x=\"8\" y=\"{y}\" fill=\"#ddd\">used, by the monitor's entries: {ages}</text>");
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_leave_holes_out() {
        let map = HeatMap {
            pages: vec![
                (PhysPage(1), Owner::Table, 0),
                (PhysPage(2), Owner::Data, 3),
                (PhysPage(0x10_0000), Owner::Code, 0),
            ],
        };
        let rows = map.rows();
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 0x10_0000]);
        assert_eq!(
            (rows[0].1[0], rows[0].1[1], rows[0].1[2], rows[1].1[0]),
            (NOTHING, 0xE0_4040, 0x18_2B48, 0x40_C040)
        );
        assert!(map.legend().contains("page tables                  1               0"), "{}", map.legend());
        assert_eq!([None, Some(0), Some(2), Some(255), Some(9)].map(age_class), [3, 0, 1, 3, 2]);
        assert_eq!(map.blocks((4, 9)).matches('▀').count(), 4);
        let svg = map.svg();
        assert!(svg.contains("<rect x=\"3\" y=\"0\" width=\"3\" height=\"3\" fill=\"#e04040\"/>"), "{svg}");
        assert_eq!(map.data()["owners"]["code"]["in_use"], 1);
        assert_eq!(map.data()["owners"]["data"]["by_age"], serde_json::json!([0, 0, 0, 1]));
    }
}
