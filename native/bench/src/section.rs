//! What a part has to say in the document: text, tables and plots, in that order in which it adds them.

use crate::figure::Figure;
use crate::plot::Plot;

/// One part's section of the document.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// What it holds, from above.
    pub blocks: Vec<Block>,
}

/// One piece of a section.
#[derive(Debug, Clone)]
pub enum Block {
    /// A paragraph of Markdown.
    Text(String),
    /// A table.
    Table(Table),
    /// A plot, in a file of its own.
    Plot(Box<Plot>),
}

/// A table. The first column names the row; the others are aligned to the right.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// One sentence above it, with the unit of what has none in its header; may be empty.
    pub caption: String,
    /// A header for each column, with its unit.
    pub header: Vec<String>,
    /// The cells of each row, as text of Markdown.
    pub rows: Vec<Vec<String>>,
}

impl Section {
    /// Adds a paragraph of Markdown. Line breaks in it count as spaces.
    pub fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.blocks.push(Block::Text(text.into()));
        self
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) -> &mut Self {
        self.blocks.push(Block::Table(table));
        self
    }

    /// Adds a plot.
    pub fn plot(&mut self, plot: impl Into<Plot>) -> &mut Self {
        self.blocks.push(Block::Plot(Box::new(plot.into())));
        self
    }
}

impl Table {
    /// A table with these headers and no rows yet.
    pub fn new(caption: &str, header: &[&str]) -> Self {
        Self {
            caption: caption.to_owned(),
            header: header.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Self {
        self.rows
            .push(cells.into_iter().map(|cell| cell.0).collect());
        self
    }
}

/// What stands in a cell: text, a [`Figure`], or nothing (`–`).
#[derive(Debug, Clone)]
pub struct Cell(pub String);

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&Figure> for Cell {
    fn from(figure: &Figure) -> Self {
        Self(figure.to_string())
    }
}

impl From<Figure> for Cell {
    fn from(figure: Figure) -> Self {
        Self(figure.to_string())
    }
}

impl From<Option<&Figure>> for Cell {
    fn from(figure: Option<&Figure>) -> Self {
        Self(figure.map_or_else(|| "–".to_owned(), Figure::to_string))
    }
}
