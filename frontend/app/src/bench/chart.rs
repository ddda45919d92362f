//! The bench's chart: a bar for each kernel, how many times the first column is faster than each other one, on a logarithmic
//! scale with a line at 1. SVG by hand: nothing but rectangles, lines and text.

use super::table::Table;
use std::fmt::Write as _;

const COLOURS: [&str; 4] = ["#3b6ea8", "#c46a2d", "#5b8c4a", "#8a5ba0"];
const LEFT: f64 = 130.0;
const WIDTH: f64 = 620.0;
const BAR: f64 = 7.0;
/// The scale: from a 32nd to 1024 times.
const FROM: f64 = -5.0;
const TO: f64 = 10.0;

fn x(times: f64) -> f64 {
    LEFT + (times.max(1e-9).log2().clamp(FROM, TO) - FROM) / (TO - FROM) * WIDTH
}

/// Text as XML wants it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The chart.
pub fn svg(table: &Table) -> String {
    let mut lines: Vec<(String, Vec<Option<f64>>)> =
        table.rows.iter().map(|row| (row.name.clone(), row.times_faster.clone())).collect();
    lines.extend(table.means.iter().map(|(family, means)| (format!("mean of {family}"), means.clone())));
    let others = table.columns.len().saturating_sub(1).max(1);
    let step = BAR * others as f64 + 5.0;
    let height = 60.0 + step * lines.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let first = table.columns.first().map_or("", String::as_str);
    for (n, name) in table.columns.iter().skip(1).enumerate() {
        let at = LEFT + 170.0 * n as f64;
        let colour = COLOURS[n % COLOURS.len()];
        let text = escaped(&format!("{first} is faster than {name} by"));
        let _ = writeln!(
            out,
            "<rect x=\"{at}\" y=\"8\" width=\"9\" height=\"9\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"16\">{text}</text>",
            at + 13.0
        );
    }
    for power in (FROM as i32..=TO as i32).filter(|power| power % 2 == 0) {
        let times = 2f64.powi(power);
        let label = if power < 0 { format!("1/{}", 2f64.powi(-power)) } else { format!("{times}") };
        let stroke = if power == 0 { "#444" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"36\" y2=\"{height:.0}\" stroke=\"{stroke}\"/><text x=\"{0:.1}\" y=\"32\" text-anchor=\"middle\">{label}</text>",
            x(times)
        );
    }
    for (line, (name, values)) in lines.iter().enumerate() {
        let top = 42.0 + step * line as f64;
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            top + BAR,
            escaped(name)
        );
        for (n, value) in values.iter().enumerate() {
            let Some(times) = value else { continue };
            let (from, to) = (x(1.0).min(x(*times)), x(1.0).max(x(*times)));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}: {times:.2}</title></rect>",
                top + BAR * n as f64,
                (to - from).max(0.5),
                BAR - 1.0,
                COLOURS[n % COLOURS.len()],
                escaped(name)
            );
        }
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::sample;
    use super::*;

    #[test]
    fn bars_start_at_one_and_names_are_there() {
        let chart = svg(&sample());
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
        assert!(
            chart.contains("int.crc") && chart.contains("mean of int") && chart.contains("jit is faster than qemu by")
        );
        // Twice as fast reaches from 1 to 2, a quarter as fast from 1/4 to 1.
        assert!(
            chart.contains(&format!("<rect x=\"{:.1}\"", x(1.0)))
                && chart.contains(&format!("<rect x=\"{:.1}\"", x(0.25)))
        );
    }
}
