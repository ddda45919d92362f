//! A map of guest RAM: a dot for each page, coloured by what it is, bright where a monitor entry leads to it.

use crate::exit_status::Failure;
use crate::picture;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use umbra_machine::Machine;
use umbra_machine::display::Frame;
use umbra_machine::mmu::{Linear, PageUse, PhysPage};

/// What a page is, the strongest first: each has a colour when used and one when not.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Owner {
    Table,
    Descriptors,
    Code,
    Data,
    Out,
    Untouched,
}

/// Owner, name, colour where a monitor entry leads to the page, colour where none does.
#[rustfmt::skip]
const OWNERS: [(Owner, &str, u32, u32); 6] = [
    (Owner::Table,       "page tables", 0xE0_4040, 0x80_2020),
    (Owner::Descriptors, "descriptors", 0xE0_40E0, 0x80_2080),
    (Owner::Code,        "code",        0x40_C040, 0x20_7020),
    (Owner::Data,        "data",        0x50_90F0, 0x28_4878),
    (Owner::Out,         "swapped out", 0xC0_9030, 0xC0_9030),
    (Owner::Untouched,   "untouched",   0x18_1818, 0x18_1818),
];

/// Dots in a row: 1 MiB.
const COLUMNS: usize = 256;
/// What stands for a page that is no RAM.
const NOTHING: u32 = 0;

/// The map.
pub struct HeatMap {
    pages: Vec<(PhysPage, Owner, bool)>,
}

impl HeatMap {
    /// The map of a machine that stands still.
    pub fn of(machine: &Machine) -> HeatMap {
        let mut descriptors = Vec::new();
        for vcpu in machine.vcpus() {
            let tables = [(vcpu.state.gdtr.base, vcpu.state.gdtr.limit), (vcpu.state.idtr.base, vcpu.state.idtr.limit)];
            for (base, limit) in tables {
                for linear in [base, base.wrapping_add(limit.into())] {
                    descriptors.extend(vcpu.link.mmu.explain(Linear(linear)).guest.ok().map(|phys| phys.page()));
                }
            }
        }
        let owner = |(page, uses): (PhysPage, PageUse)| {
            let owner = if uses.is(PageUse::TABLE) {
                Owner::Table
            } else if uses.is(PageUse::OUT) {
                Owner::Out
            } else if descriptors.contains(&page) {
                Owner::Descriptors
            } else if uses.is(PageUse::CODE) {
                Owner::Code
            } else if uses.is(PageUse::RESIDENT) || uses.is(PageUse::SHARED) {
                Owner::Data
            } else {
                Owner::Untouched
            };
            (page, owner, uses.is(PageUse::MAPPED))
        };
        HeatMap { pages: machine.memory().page_uses().into_iter().map(owner).collect() }
    }
    fn count(&self, owner: Owner, mapped: bool) -> usize {
        self.pages.iter().filter(|page| (page.1, page.2) == (owner, mapped)).count()
    }
    /// What the colours mean, and how many pages have them.
    pub fn legend(&self) -> String {
        let mut text = format!(
            "{} pages of 4 KiB of guest RAM\n{:14}{:>12}{:>12}\n",
            self.pages.len(),
            "",
            "in use",
            "not in use"
        );
        for (owner, name, ..) in OWNERS {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:14}{:>12}{:>12}", self.count(owner, true), self.count(owner, false));
        }
        text
    }
    /// The same for programs.
    pub fn data(&self) -> Value {
        let owners: serde_json::Map<String, Value> = (OWNERS.iter())
            .map(|&(owner, name, ..)| {
                (name.to_owned(), json!({ "in_use": self.count(owner, true), "not_in_use": self.count(owner, false) }))
            })
            .collect();
        json!({ "pages": self.pages.len(), "owners": owners })
    }
    /// Rows of dots, those that hold no RAM left out: the address of the first page, and the colours.
    fn rows(&self) -> Vec<(u64, [u32; COLUMNS])> {
        let mut rows: Vec<(u64, [u32; COLUMNS])> = Vec::new();
        for &(page, owner, mapped) in &self.pages {
            let (first, column) = (page.0 & !(COLUMNS as u64 - 1), (page.0 % COLUMNS as u64) as usize);
            if rows.last().is_none_or(|row| row.0 != first) {
                rows.push((first, [NOTHING; COLUMNS]));
            }
            let color =
                OWNERS.iter().find(|known| known.0 == owner).map_or(0, |known| if mapped { known.2 } else { known.3 });
            if let Some((_, colors)) = rows.last_mut() {
                colors[column] = color;
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
        let rows = self.rows();
        let pixels = rows.iter().flat_map(|(_, colors)| *colors).collect();
        picture::save(&Frame { width: COLUMNS, height: rows.len(), pixels }, path)
    }
    fn svg(&self) -> String {
        const DOT: usize = 3;
        const LEGEND: usize = 24 * OWNERS.len() + 16;
        let rows = self.rows();
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
        for (number, (owner, name, used, idle)) in OWNERS.into_iter().enumerate() {
            let y = rows.len() * DOT + 12 + 24 * number;
            let (a, b) = (self.count(owner, true), self.count(owner, false));
            let _ = writeln!(
                svg,
                "<rect x=\"8\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"#{used:06x}\"/><rect x=\"24\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"#{idle:06x}\"/>\
                 <text x=\"46\" y=\"{}\" fill=\"#ddd\">{name}: {a} pages in use, {b} not in use</text>",
                y + 12
            );
        }
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
                (PhysPage(1), Owner::Table, true),
                (PhysPage(2), Owner::Data, false),
                (PhysPage(0x10_0000), Owner::Code, true),
            ],
        };
        let rows = map.rows();
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 0x10_0000]);
        assert_eq!(
            (rows[0].1[0], rows[0].1[1], rows[0].1[2], rows[1].1[0]),
            (NOTHING, 0xE0_4040, 0x28_4878, 0x40_C040)
        );
        assert!(map.legend().contains("page tables              1           0"), "{}", map.legend());
        let svg = map.svg();
        assert!(svg.contains("<rect x=\"3\" y=\"0\" width=\"3\" height=\"3\" fill=\"#e04040\"/>"), "{svg}");
        assert_eq!(map.data()["owners"]["code"]["in_use"], 1);
    }
}
