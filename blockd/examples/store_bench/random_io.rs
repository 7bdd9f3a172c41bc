//! Random 4 KiB reads and writes, store and plain file in turns.

use std::path::{Path, PathBuf};

use crate::chain::{Chain, Places};
use crate::figures::Samples;
use crate::plain::{Plain, Spread};
use crate::row::Row;
use crate::store::Store;

/// Operations of a round that the page cache serves.
const CACHED_OPERATIONS: usize = 20_000;
/// Of a round that waits for the disk.
const WAITING_OPERATIONS: usize = 300;
/// Where overwrites go: what a database keeps hot.
const HOT_BLOCKS: u64 = 16_384;

/// Both sides with the same contents.
#[derive(Debug)]
pub(crate) struct Bench {
    folder: PathBuf,
    store: Store,
    plain: Plain,
    chain: Chain,
    rounds: usize,
}

/// One side does one operation at a place.
type Act<S> = fn(&mut S, u64) -> anyhow::Result<()>;

impl Bench {
    pub(crate) fn new(folder: &Path, chain: Chain, rounds: usize) -> anyhow::Result<Self> {
        eprintln!("preparing {} layers", chain.sealed);
        let mut plain = Plain::create(&folder.join("plain"), chain.bytes)?;
        plain.fill_as(chain)?;
        Ok(Self {
            store: chain.build(folder)?,
            folder: folder.to_path_buf(),
            plain,
            chain,
            rounds,
        })
    }

    /// Rounds of both sides in turns; `before` makes both ready for a round.
    fn compare(
        &mut self,
        case: &str,
        operations: usize,
        blocks: u64,
        before: fn(&mut Self) -> anyhow::Result<()>,
        acts: (Act<Store>, Act<Plain>),
    ) -> anyhow::Result<Row> {
        let case = format!("{case}, {} layers", self.chain.sealed);
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        let mut ratios = Vec::with_capacity(self.rounds);
        // The first round warms up and does not count.
        for round in 0..=self.rounds {
            before(self)?;
            let mut places = Places::new(blocks, round as u64 + 1);
            let mut same = places.clone();
            let (store, plain) = (&mut self.store, &mut self.plain);
            let mut on_store = || Samples::take(operations, || (acts.0)(store, places.draw()));
            let mut on_plain = || Samples::take(operations, || (acts.1)(plain, same.draw()));
            // Who comes first meets what making ready has left to the other processor.
            let (on_store, on_plain) = if round % 2 == 0 {
                let first = on_store()?;
                (first, on_plain()?)
            } else {
                let first = on_plain()?;
                (on_store()?, first)
            };
            if round > 0 {
                ratios.push(on_store.rate() / on_plain.rate());
                ours.join(on_store);
                theirs.join(on_plain);
            }
        }
        let row = Row::beside(case, ours.figures(), theirs.figures(), ratios);
        eprintln!("{row}");
        Ok(row)
    }

    pub(crate) fn cached_reads(&mut self) -> anyhow::Result<Row> {
        let blocks = self.chain.blocks();
        let acts: (Act<Store>, Act<Plain>) = (Store::read, Plain::read);
        self.compare("read, cached", CACHED_OPERATIONS, blocks, Self::rest, acts)
    }

    /// Plain files with the volume's blocks spread as over the layers, beside one plain file, and the
    /// store beside them: of what the store takes more than one file, how much is the layout's.
    pub(crate) fn spread_reads(&mut self) -> anyhow::Result<Vec<Row>> {
        let folder = self.folder.join("spread");
        std::fs::create_dir(&folder)?;
        let mut spread = Spread::create(&folder, self.chain)?;
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        let (mut stored, mut beside) = (Samples::default(), Samples::default());
        let (mut ratios, mut store_ratios) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let mut places = Places::new(self.chain.blocks(), round as u64 + 1);
            let (mut same, mut third) = (places.clone(), places.clone());
            let store = &mut self.store;
            let on_store = Samples::take(CACHED_OPERATIONS, || store.read(third.draw()))?;
            let apart = Samples::take(CACHED_OPERATIONS, || spread.read(places.draw()))?;
            let plain = &mut self.plain;
            let whole = Samples::take(CACHED_OPERATIONS, || plain.read(same.draw()))?;
            if round > 0 {
                ratios.push(apart.rate() / whole.rate());
                store_ratios.push(on_store.rate() / apart.rate());
                stored.join(on_store);
                beside.join(apart.clone());
                ours.join(apart);
                theirs.join(whole);
            }
        }
        std::fs::remove_dir_all(&folder)?;
        let case = format!("plain files as {} layers, cached", self.chain.sealed);
        let layout = Row::beside(case, ours.figures(), theirs.figures(), ratios);
        let case = format!("read, cached, {} layers, to files as it", self.chain.sealed);
        let store = Row::beside(case, stored.figures(), beside.figures(), store_ratios);
        eprintln!("{layout}\n{store}");
        Ok(vec![layout, store])
    }

    pub(crate) fn reads(&mut self) -> anyhow::Result<Vec<Row>> {
        let blocks = self.chain.blocks();
        let acts: (Act<Store>, Act<Plain>) = (Store::read, Plain::read);
        Ok(vec![self.compare(
            "read, from the disk",
            WAITING_OPERATIONS,
            blocks,
            Self::forget,
            acts,
        )?])
    }

    pub(crate) fn writes(&mut self) -> anyhow::Result<Vec<Row>> {
        let acts: (Act<Store>, Act<Plain>) = (Store::write, Plain::write);
        let blocks = self.chain.blocks();
        let first = self.compare(
            "first write",
            CACHED_OPERATIONS,
            blocks,
            Self::empty_head,
            acts,
        )?;
        self.warm()?;
        let over = self.compare("overwrite", CACHED_OPERATIONS, HOT_BLOCKS, Self::rest, acts)?;
        Ok(vec![first, over])
    }

    pub(crate) fn flushes(&mut self) -> anyhow::Result<Vec<Row>> {
        self.warm()?;
        let each: (Act<Store>, Act<Plain>) = (
            |store, place| store.write(place).and_then(|()| store.flush()),
            |plain, place| plain.write(place).and_then(|()| plain.flush()),
        );
        // One operation is 32 writes and a flush; the places follow from the one drawn.
        let many: (Act<Store>, Act<Plain>) = (
            |store, place| {
                spread(place).try_for_each(|place| store.write(place))?;
                store.flush()
            },
            |plain, place| {
                spread(place).try_for_each(|place| plain.write(place))?;
                plain.flush()
            },
        );
        Ok(vec![
            self.compare(
                "overwrite, flush each",
                WAITING_OPERATIONS,
                HOT_BLOCKS,
                Self::rest,
                each,
            )?,
            self.compare(
                "32 overwrites and a flush",
                WAITING_OPERATIONS / 4,
                HOT_BLOCKS,
                Self::rest,
                many,
            )?,
        ])
    }

    /// Has the head hold the hot blocks, and the plain file too.
    fn warm(&mut self) -> anyhow::Result<()> {
        for block in 0..HOT_BLOCKS.min(self.chain.blocks()) {
            self.store.write(block)?;
            self.plain.write(block)?;
        }
        self.rest()
    }

    /// No side has anything unwritten that would burden the other.
    fn rest(&mut self) -> anyhow::Result<()> {
        if let Some(plan) = self.store.replica.plan_writeback() {
            let result = plan.run();
            self.store.replica.finish_flush(plan, result)?;
        }
        self.plain.flush()
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.rest()?;
        self.store.forget()?;
        self.plain.forget()
    }

    /// Nothing is written yet, in the head and in a new plain file.
    fn empty_head(&mut self) -> anyhow::Result<()> {
        self.rest()?;
        self.store.empty_head()?;
        self.plain = Plain::create(&self.folder.join("plain"), self.chain.bytes)?;
        Ok(())
    }

    pub(crate) fn remove(self) -> anyhow::Result<()> {
        self.store.destroy()?;
        Ok(std::fs::remove_file(self.folder.join("plain"))?)
    }
}

fn spread(place: u64) -> impl Iterator<Item = u64> {
    (0..32).map(move |step| (place + step * 509) % HOT_BLOCKS)
}
