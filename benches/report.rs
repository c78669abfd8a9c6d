// SPDX-License-Identifier: Apache-2.0
//! docs/performance.md and docs/performance.svg, from what the other two benchmarks have left: measured figures and no others,
//! but for two from elsewhere, which are marked as such.
//!
//! Of a brief run nothing is to be believed, so its report stays among the results.

#[path = "common/table.rs"]
mod table;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use table::{Asked, Table, results};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
const NAME: &str = "performance";

fn main() -> Result<()> {
    let brief = Asked::read().brief;
    let folder = if brief { results() } else { PathBuf::from(DOCS) };
    fs::create_dir_all(&folder)?;
    let path = |ending: &str| folder.join(NAME).with_extension(ending);
    fs::write(path("md"), document(brief)?).with_context(|| format!("write {}", path("md").display()))?;
    draw(&path("svg")).with_context(|| format!("draw {}", path("svg").display()))?;
    println!("\nwritten: {}, {}", path("md").display(), path("svg").display());
    Ok(())
}

// ---- The text ----------------------------------------------------------------------------------------------------------

const HEAD: &str = "# Performance

Written by `make bench`. What a call of the runtime costs more with a program in front of it, and what that comes to in real
containers. Figures are medians of differences between calls made in turn, or said to be otherwise. Nothing depends on them: no
test passes or fails by a time.

![What one container operation costs more](performance.svg)
";

const VERBS: &str = "## What a program in front of the runtime adds

Microseconds beside a direct call of a stand-in for the runtime that ends at once. Four programs that only call `execve`: without a
C library, in C, in Rust with static glibc (which the goals are about), in Rust with musl. `x` is how many times what the shim adds is
of what that program adds; `faults` are the shim's minor page faults beyond those of a direct call; `KiB more` is its peak memory
beside that of the program in Rust with glibc.
";

const MOUNTS: &str = "## exec with a state view, by the number of mounts

runc 1.1 and a container whose clocks are shifted: the shim copies the mount table. `unshare alone` is a program without a C library
that does nothing else: a mount namespace of its own, made a slave of the host's. Mounts are shared, as systemd makes them.
Microseconds.
";

const LIVES: &str = "A container of busybox from create to delete, milliseconds. `alone` is the runtime, all else is what is added to it.
`time namespace` is the price of the namespace itself, without the shim: the kernel's, and what the runtime does about it. `no libc` and
`Rust glibc` are the programs that only call `execve`. `shim alone` is what the shim adds without the namespace's price, and `±` in what
range 19 of 20 such medians are. A verdict is `unclear` where that range holds the goal. The time until a killed container has ended is not
measured.
";

const CYCLES: &str = "`alone` and `with shim` are medians of so many checkpoints and restores in turn, milliseconds; CRIU's own times differ by
more than the shim takes. So `shim alone` is measured by itself, with a stand-in that ends at once in the place of runtime and CRIU,
before the same container with all its processes and its real image: what the shim adds to a direct call of the stand-in. `%` is that
beside `alone`.
";

/// What lies between `lifecycle-` and the name of a part.
fn combinations() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(results()).context("there are no results: `make bench` makes them")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend(name.strip_suffix("-lives.tsv").map(str::to_owned));
    }
    // runc before crun, the older before the newer.
    found.sort_by_key(|name: &String| (Reverse(name.rsplit('-').next().map(str::to_owned)), name.clone()));
    ensure!(!found.is_empty(), "there are no results of real containers");
    Ok(found)
}

fn document(brief: bool) -> Result<String> {
    let combinations = combinations()?;
    let mut text = HEAD.to_owned();
    if brief {
        text += "\n**A brief run, which only shows that the benchmark works: believe no figure of it.**\n";
    }
    text += "\n## Goals\n\n";
    let mut goals = Table::new(&["", "measured", "goal", "verdict"]);
    for row in Table::read("overhead-goals")?.rows() {
        goals.add(row.clone());
    }
    for name in &combinations {
        let runtime = runtime(name)?;
        for row in Table::read(&format!("{name}-goals"))?.rows() {
            let mut row = row.clone();
            row[0] = format!("{runtime}: {}", row[0]);
            goals.add(row);
        }
    }
    text += &goals.markdown();

    text += "\n## Where\n\n";
    let mut facts = Table::new(&["", ""]);
    for (name, value) in machine()? {
        facts.add(vec![name.to_owned(), value]);
    }
    for row in Table::read("overhead-facts")?.rows() {
        facts.add(row.clone());
    }
    for name in &combinations {
        let table = Table::read(&format!("{name}-facts"))?;
        let of = |name: &str| table.rows().iter().find(|row| row[0] == name).map_or("", |row| row[1].as_str());
        let version = of("runtime").replace(" version ", " ");
        facts.add(vec![
            version,
            format!(
                "in the stack {}; CRIU {}; control groups of {}; time namespaces {}",
                stack(name),
                of("CRIU").trim_start_matches("Version: "),
                of("control groups"),
                of("time namespaces")
            ),
        ]);
    }
    text += &facts.markdown();

    write!(text, "\n{VERBS}\n{}", Table::read("overhead-verbs")?.markdown())?;
    write!(text, "\n### create, by the size of config.json\n\n{}", Table::read("overhead-sizes")?.markdown())?;
    write!(text, "\n{MOUNTS}\n{}", Table::read("overhead-mounts")?.markdown())?;
    write!(text, "\n## A container's life\n\n{LIVES}")?;
    for name in &combinations {
        write!(text, "\n### {}\n\n{}", runtime(name)?, Table::read(&format!("{name}-lives"))?.markdown())?;
    }
    write!(text, "\n## Checkpoint and restore\n\n{CYCLES}")?;
    for name in &combinations {
        write!(text, "\n### {}\n\n{}", runtime(name)?, Table::read(&format!("{name}-cycles"))?.markdown())?;
    }
    Ok(text)
}

/// Name and release, as the runtime tells them.
fn runtime(name: &str) -> Result<String> {
    let facts = Table::read(&format!("{name}-facts"))?;
    let version = facts.rows().iter().find(|row| row[0] == "runtime").context("a runtime without a version")?;
    // Without what Debian adds to the release.
    let version = version[1].replace(" version ", " ");
    Ok(version.split(['+', '~']).next().unwrap_or_default().to_owned())
}

fn stack(name: &str) -> &str {
    name.trim_start_matches("lifecycle-").rsplit_once('-').map_or(name, |(stack, _)| stack)
}

fn machine() -> Result<Vec<(&'static str, String)>> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let count = std::thread::available_parallelism()?;
    Ok(vec![
        ("Date", now.split('T').next().unwrap_or_default().to_owned()),
        ("Kernel", kernel.split('-').next().unwrap_or_default().trim().to_owned()),
        ("Processor", format!("{}, {count} of them", model.unwrap_or(std::env::consts::ARCH).trim())),
    ])
}

// ---- The picture -------------------------------------------------------------------------------------------------------

const GREY: RGBColor = RGBColor(120, 120, 120);
const BLUE: RGBColor = RGBColor(20, 100, 200);
const ORANGE: RGBColor = RGBColor(215, 115, 20);
const BLACK: RGBColor = RGBColor(30, 30, 30);

/// Titles, and what is under them.
const ABOVE: [&str; 2] = [
    "What one container operation costs more, in milliseconds",
    "With a program in front of the container runtime (runc, crun), beside the runtime alone. Shorter is better.",
];
const BELOW: [&str; 2] = [
    "What create costs more, by the size of the container's description",
    "tns-shim has to read all of config.json and to write it anew. Milliseconds.",
];

/// A line of a chart.
enum Line {
    /// Over those that follow.
    Title(&'static str, RGBColor),
    /// What it is, and milliseconds.
    Bar(String, f64, RGBColor),
}

/// Pixels: of the picture, of the part that names stand in, and of a line.
const WIDTH: i32 = 960;
const NAMES: i32 = 400;
const HEIGHT_OF_LINE: i32 = 27;

fn draw(path: &Path) -> Result<()> {
    let [first, second] = [designs()?, sizes()?];
    let heights = [&first, &second].map(|lines| i32::try_from(lines.len()).map(|count| count * HEIGHT_OF_LINE + 130));
    let [Ok(above), Ok(below)] = heights else { bail!("too many lines") };
    let size = (u32::try_from(WIDTH)?, u32::try_from(above + below + 40)?);
    let root = SVGBackend::new(path, size).into_drawing_area();
    // Also where the page is dark.
    root.fill(&WHITE)?;
    let (upper, rest) = root.split_vertically(above);
    let (lower, foot) = rest.split_vertically(below);
    chart(&upper, ABOVE, &first)?;
    chart(&lower, BELOW, &second)?;
    let small = ("sans-serif", 14).into_font().color(&BLACK);
    foot.draw(&Text::new("* Not measured here: a figure from elsewhere, of another machine.", (20, 10), small))?;
    root.present()?;
    Ok(())
}

fn designs() -> Result<Vec<Line>> {
    let table = Table::read("overhead-verbs")?;
    let mut lines = vec![Line::Title("A program in front of the runtime that does nothing", GREY)];
    let bar = |text: &str, row: &str, column: &str, color| {
        let time = table.number(row, column)?;
        Some(Line::Bar(text.to_owned(), time / 1000.0, color))
    };
    let passed = "state: passed on";
    for (text, column) in [
        ("without a C library: the least there is", "no libc"),
        ("in C", "C"),
        ("in Rust, with musl", "Rust musl"),
        ("in Rust, with glibc", "Rust glibc"),
    ] {
        lines.extend(bar(text, passed, column, GREY));
    }
    lines.push(Line::Title("tns-shim", BLUE));
    for (text, row) in [
        ("calls that it passes on: start, kill, delete …", passed),
        ("exec", "exec: nothing to do, runc 1.1"),
        ("create, config.json of 25 KB", "create: splice, 25 KB"),
        ("exec, runc 1.1, into a restored container", "exec: enter, with a state view"),
    ] {
        lines.extend(bar(text, row, "shim", BLUE));
    }
    lines.push(Line::Title("Other programs in front of a runtime", ORANGE));
    for (text, time) in [("nvidia-container-runtime *", 5.4), ("oci-add-hooks *", 5.5)] {
        lines.push(Line::Bar(text.to_owned(), time, ORANGE));
    }
    Ok(lines)
}

fn sizes() -> Result<Vec<Line>> {
    let table = Table::read("overhead-sizes")?;
    let lines = table.rows().iter().filter_map(|row| {
        let size = row[0].rsplit("of ").next()?;
        Some(Line::Bar(size.to_owned(), table.number(&row[0], "shim")? / 1000.0, BLUE))
    });
    Ok(lines.collect())
}

fn chart(area: &DrawingArea<SVGBackend<'_>, Shift>, [title, note]: [&str; 2], lines: &[Line]) -> Result<()> {
    let most = lines.iter().map(|line| if let Line::Bar(_, time, _) = line { *time } else { 0.0 }).fold(0.1, f64::max);
    let count = i32::try_from(lines.len())?;
    area.draw(&Text::new(title, (20, 18), ("sans-serif", 21).into_font().color(&BLACK)))?;
    area.draw(&Text::new(note, (20, 44), ("sans-serif", 14).into_font().color(&BLACK)))?;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_top(68)
        .margin_right(70)
        .x_label_area_size(34)
        .y_label_area_size(NAMES)
        // The first line on top.
        .build_cartesian_2d(0.0..most * 1.02, count..0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(GREY)
        .x_labels(8)
        .x_label_formatter(&|time| format!("{time} ms"))
        .label_style(("sans-serif", 13).into_font().color(&BLACK))
        .draw()?;
    let style = |size: i32, color: &RGBColor, side| {
        ("sans-serif", size).into_font().color(color).pos(Pos::new(side, VPos::Center))
    };
    for (number, line) in (0..count).zip(lines) {
        let (left, top) = chart.backend_coord(&(0.0, number));
        let bottom = chart.backend_coord(&(0.0, number + 1)).1;
        let middle = top + (bottom - top) / 2;
        let (beginning, height) = area.get_base_pixel();
        let place = |x: i32| (x - beginning, middle - height);
        match line {
            Line::Title(text, color) => {
                area.draw(&Text::new(*text, place(beginning + 20), style(16, color, HPos::Left)))?;
            }
            Line::Bar(text, time, color) => {
                area.draw(&Text::new(text.as_str(), place(left - 10), style(15, &BLACK, HPos::Right)))?;
                let end = chart.backend_coord(&(time.max(0.0), number)).0;
                let corners = [place(left), place(end)].map(|(x, y)| (x, y));
                let bar = [(corners[0].0, corners[0].1 - 9), (corners[1].0.max(corners[0].0 + 1), corners[1].1 + 9)];
                area.draw(&Rectangle::new(bar, color.filled()))?;
                let shown = if *time < 1.0 { format!("{time:.2}") } else { format!("{time:.1}") };
                area.draw(&Text::new(shown, place(end + 6), style(15, &BLACK, HPos::Left)))?;
            }
        }
    }
    Ok(())
}
