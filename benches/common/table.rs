// SPDX-License-Identifier: Apache-2.0
//! What was measured: shown as it comes, kept as a file that any program reads, and read again by the report.

// Each program uses a part.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the parts leave what they have measured, for the report.
pub fn results() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench")
}

/// What was asked for on the command line: `[TURNS] [brief]`.
pub struct Asked {
    pub turns: usize,
    /// To see that everything works, and nothing more.
    pub brief: bool,
}

impl Asked {
    pub fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let brief = words.iter().any(|word| word == "brief");
        let turns = words.iter().find_map(|word| word.parse().ok());
        Self { turns: turns.unwrap_or(if brief { 5 } else { 500 }).max(1), brief }
    }
}

/// A table of text, the first row of which are the names of its columns.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// Shows the head of a table whose rows come one by one.
    pub fn begin(title: &str, columns: &[&str]) -> Self {
        let table = Self::new(columns);
        println!("\n{title}\n");
        table.show(&table.columns);
        table
    }

    /// Shows all of it.
    pub fn print(&self) {
        [&self.columns].into_iter().chain(&self.rows).for_each(|row| self.show(row));
    }

    /// Adds a row, and shows it.
    pub fn tell(&mut self, row: Vec<String>) {
        self.show(&row);
        self.rows.push(row);
    }

    fn show(&self, row: &[String]) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = self.columns.get(column).map_or(0, |name| name.chars().count()).max(7) + 2;
            let _ = if column == 0 { write!(line, "{cell:<38}") } else { write!(line, "{cell:>width$}") };
        }
        println!("{}", line.trim_end());
    }

    /// Adds a row.
    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Writes it among the results, with tabs between the columns.
    pub fn keep(&self, name: &str) -> Result<()> {
        self.keep_in(&results(), name)
    }

    /// Writes it into another folder than that of the results.
    pub fn keep_in(&self, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(format!("{name}.tsv"));
        let lines = [&self.columns].into_iter().chain(&self.rows).map(|row| row.join("\t") + "\n");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, lines.collect::<String>()))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Reads one of the results.
    pub fn read(name: &str) -> Result<Self> {
        let path = results().join(format!("{name}.tsv"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned).collect());
        Ok(Self { columns: rows.next().unwrap_or_default(), rows: rows.collect() })
    }

    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The number in the row and column of these names.
    pub fn number(&self, row: &str, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|cells| cells.first().is_some_and(|name| name == row))?.get(column)?.parse().ok()
    }

    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: String = (0..self.columns.len()).map(|column| if column == 0 { "|---" } else { "|---:" }).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}|\n{rows}", line(&self.columns))
    }
}

/// For people to read: nothing depends on it.
pub fn verdict(measured: f64, most: f64) -> &'static str {
    if measured <= most { "met" } else { "missed" }
}

/// What a program prints about itself in its first line.
pub fn version(program: &str, argument: &str) -> String {
    let output = std::process::Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("not there").trim().to_owned()
}
