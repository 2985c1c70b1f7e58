//! A section as Markdown.

use std::fmt::Write;

use crate::part::{Entry, PartResult};
use crate::section::{Block, Section, Table};

/// A section with its heading, and a last line that says how it came to be. Plots are linked as `link` and their file.
pub fn section(part: &Entry, result: &PartResult, section: &Section, link: &str) -> String {
    let mut text = format!("## {}. {}\n", part.number, part.title);
    for block in &section.blocks {
        text.push('\n');
        match block {
            Block::Text(paragraph) => text += &wrap(paragraph),
            Block::Table(rows) => table(&mut text, rows),
            Block::Plot(plot) => {
                let _ = writeln!(text, "![{}]({link}{}.svg)", plot.title(), plot.file());
            }
        }
    }
    if let Some(told) = result.hung.text() {
        let _ = write!(text, "\n{}", wrap(&told));
    }
    for fault in &result.faults {
        let _ = writeln!(text, "\n**Went wrong:** {fault}");
    }
    let PartResult {
        part,
        runs,
        seconds,
        when,
        ..
    } = result;
    let again = format!(
        "make bench PART={part} RUNS={runs} EJABBERD_VERSION={}",
        result.ejabberd
    );
    let _ = writeln!(text, "\n<sub>`{again}`, {when}, took {seconds:.0} s.</sub>");
    text
}

/// A table by itself.
pub fn text(rows: &Table) -> String {
    let mut text = String::new();
    table(&mut text, rows);
    text
}

fn table(text: &mut String, table: &Table) {
    if !table.caption.is_empty() {
        let _ = writeln!(text, "{}\n", wrap(&table.caption).trim_end());
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    *text += &line(&table.header);
    let aligned: Vec<String> = (0..table.header.len())
        .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
        .collect();
    *text += &line(&aligned);
    table.rows.iter().for_each(|row| *text += &line(row));
}

/// Breaks a paragraph into lines of some 110 characters. A paragraph that has lines of its own meaning (a list, code)
/// stays as it is.
pub fn wrap(paragraph: &str) -> String {
    const WIDTH: usize = 110;
    if paragraph
        .lines()
        .any(|line| line.starts_with(['-', '`', '|', ' ', '#']))
    {
        return format!("{}\n", paragraph.trim_end());
    }
    let mut text = String::new();
    let mut used = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > WIDTH {
            text.push('\n');
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += length;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Cell;

    #[test]
    fn a_table_has_its_header_and_rows() {
        let mut rows = Table::new("In seconds.", &["what", "stock"]);
        rows.row([Cell::from("logins"), Cell::from("1.5")]);
        let mut text = String::new();
        table(&mut text, &rows);
        assert_eq!(
            text,
            "In seconds.\n\n| what | stock |\n| --- | ---: |\n| logins | 1.5 |\n"
        );
    }

    #[test]
    fn paragraphs_are_wrapped_and_lists_are_not() {
        let long = "word ".repeat(40);
        assert!(wrap(&long).lines().all(|line| line.len() <= 110));
        assert_eq!(wrap("- one\n- two"), "- one\n- two\n");
    }
}
