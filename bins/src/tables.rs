//! Tables in the output of commands.

use std::ops::RangeBounds;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};

/// A table without rows.
pub(crate) fn table<C: Into<Cell>>(header: impl IntoIterator<Item = C>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header.into_iter().map(Into::into).collect::<Vec<Cell>>());
    table
}

/// Aligns the columns with these numbers, counted from 0, to the right. Call it when the table has its header or its rows.
pub(crate) fn right_align(table: &mut Table, columns: impl RangeBounds<usize>) {
    for (_, column) in table.column_iter_mut().enumerate().filter(|(index, _)| columns.contains(index)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
