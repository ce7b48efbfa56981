//! The live table: on a terminal redrawn every second, elsewhere printed every few seconds.

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row as TableRow, Table};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::End;
use super::shop::Shop;
use super::traffic::{Opaque, Row, Scrape};

/// How often sidecars are scraped.
const REFRESH: Duration = Duration::from_secs(1);

/// How often the table is printed where it cannot be redrawn, in refreshes.
const PRINT_EVERY: u32 = 5;

/// What stands above the table.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// `label: text`, one per line.
    pub(crate) lines: Vec<(&'static str, String)>,
}

/// Shows the table until the user ends it, with `q` or Ctrl-C on a terminal, or a signal.
pub(crate) async fn show(shop: &Shop, head: &Head, end: &mut End) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() { on_terminal(shop, head, end).await } else { printed(shop, head, end).await }
}

async fn on_terminal(shop: &Shop, head: &Head, end: &mut End) -> anyhow::Result<()> {
    // Restored when dropped, whatever happens in between.
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            ratatui::restore();
        }
    }
    let mut terminal = ratatui::try_init()?;
    let _restore = Restore;
    let mut quit = listen_for_end();
    let mut tick = interval();
    let mut earlier = Scrape::of(&shop.pods()).await;
    let mut rows = Vec::new();
    loop {
        terminal.draw(|frame| draw(frame, head, &rows, &earlier.opaque))?;
        tokio::select! {
            _ = quit.recv() => return Ok(()),
            () = end.asked_for() => return Ok(()),
            _ = tick.tick() => {}
        }
        let now = Scrape::of(&shop.pods()).await;
        rows = now.since(&earlier);
        earlier = now;
    }
}

async fn printed(shop: &Shop, head: &Head, end: &mut End) -> anyhow::Result<()> {
    for (label, text) in &head.lines {
        println!("{label:<14} {text}");
    }
    let mut tick = interval();
    let mut earlier = Scrape::of(&shop.pods()).await;
    let mut refreshes = 0_u32;
    loop {
        tokio::select! {
            () = end.asked_for() => return Ok(()),
            _ = tick.tick() => {}
        }
        refreshes += 1;
        if refreshes.is_multiple_of(PRINT_EVERY) || refreshes == 1 {
            let now = Scrape::of(&shop.pods()).await;
            println!("{}", plain(&now.since(&earlier), &now.opaque));
            earlier = now;
        }
    }
}

fn interval() -> tokio::time::Interval {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + REFRESH, REFRESH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

const COLUMNS: [&str; 7] = ["from", "to", "req/s", "success", "p50", "p99", "retries/s"];

fn cells(row: &Row) -> [String; 7] {
    let ms = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |value| format!("{:.1} ms", value * 1000.0));
    let to = if row.edge.workload.is_empty() || row.edge.service.ends_with(&format!("/{}", row.edge.workload)) {
        row.edge.service.clone()
    } else {
        format!("{} ({})", row.edge.service, row.edge.workload)
    };
    [
        row.edge.source.clone(),
        to,
        format!("{:.1}", row.per_second),
        format!("{:.2} %", row.success * 100.0),
        ms(row.p50),
        ms(row.p99),
        format!("{:.1}", row.retries_per_second),
    ]
}

/// What a workload carries as bytes has no requests: its row says how many connections are open.
fn opaque_cells(opaque: &Opaque) -> ([String; 3], &'static str) {
    let Opaque { workload, mutual, plain } = opaque;
    let identity = if *plain == 0.0 { "mutual TLS" } else { "not all of it mutual TLS" };
    (["(bytes)".to_owned(), workload.clone(), format!("{} open", mutual + plain)], identity)
}

fn plain(rows: &[Row], opaque: &[Opaque]) -> String {
    let mut text = format!(
        "\n{:<14} {:<34} {:>7} {:>9} {:>9} {:>9} {:>9}  peer",
        COLUMNS[0], COLUMNS[1], COLUMNS[2], COLUMNS[3], COLUMNS[4], COLUMNS[5], COLUMNS[6]
    );
    for row in rows {
        let [from, to, rate, success, p50, p99, retries] = cells(row);
        text.push_str(&format!(
            "\n{from:<14} {to:<34} {rate:>7} {success:>9} {p50:>9} {p99:>9} {retries:>9}  {}",
            row.peer
        ));
    }
    for row in opaque {
        let ([from, to, open], identity) = opaque_cells(row);
        text.push_str(&format!(
            "\n{from:<14} {to:<34} {open:>7} {:>9} {:>9} {:>9} {:>9}  {identity}",
            "-", "-", "-", "-"
        ));
    }
    text
}

fn draw(frame: &mut ratatui::Frame<'_>, head: &Head, rows: &[Row], opaque: &[Opaque]) {
    let height = head.lines.len() as u16 + 2;
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let lines = head.lines.iter().map(|(label, text)| {
        Line::from(vec![
            Span::styled(format!("{label:<14} "), Style::new().fg(Color::DarkGray)),
            Span::styled(text.clone(), bold),
        ])
    });
    let title = Line::styled(" Weft demo ", bold.fg(Color::Magenta));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(title)), top);

    let header = COLUMNS.into_iter().chain(["peer identity"]).map(|name| Cell::from(name).style(bold));
    let body = rows.iter().map(|row| {
        let tint = if row.success < 0.999 { Style::new().fg(Color::Red) } else { Style::new().fg(Color::Green) };
        let [from, to, rate, success, p50, p99, retries] = cells(row);
        TableRow::new([
            Cell::from(from),
            Cell::from(to),
            Cell::from(rate),
            Cell::from(success).style(tint),
            Cell::from(p50),
            Cell::from(p99),
            Cell::from(retries),
            Cell::from(row.peer.clone()).style(Style::new().fg(Color::DarkGray)),
        ])
    });
    let bytes = opaque.iter().map(|row| {
        let ([from, to, open], identity) = opaque_cells(row);
        let tint = if row.plain > 0.0 { Style::new().fg(Color::Red) } else { Style::new().fg(Color::Green) };
        let cells = [from, to, open].map(Cell::from).into_iter();
        TableRow::new(cells.chain(["-"; 4].map(Cell::from)).chain([Cell::from(identity).style(tint)]))
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(34),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    frame.render_widget(
        Table::new(body.chain(bytes), widths).header(TableRow::new(header)).block(Block::bordered()),
        middle,
    );
    frame.render_widget(
        Paragraph::new("q or Ctrl-C ends the demo; nothing is left behind").style(Style::new().fg(Color::DarkGray)),
        bottom,
    );
}

/// Reads keys on a thread of its own, until the receiver is dropped: in raw mode Ctrl-C is a key, not a signal.
fn listen_for_end() -> mpsc::Receiver<()> {
    let (sender, ended) = mpsc::channel(1);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(Duration::from_millis(200)) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return,
            }
            let Ok(Event::Key(key)) = event::read() else { continue };
            let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if ctrl_c || key.code == KeyCode::Char('q') {
                // The receiver may have gone for another reason.
                let _ = sender.blocking_send(());
                return;
            }
        }
    });
    ended
}
