// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/term"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/cosign"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
	"github.com/medirecord/medirecord/internal/worm"
)

// Verdict is what a verification comes to.
type Verdict string

// Verdicts.
const (
	Clean    Verdict = "clean"
	Tampered Verdict = "tampered"
	Unproved Verdict = "unproved" // nothing speaks against it, and not enough for it
)

// AuditOptions say what to verify, and by what.
type AuditOptions struct {
	Files       []string
	Database    string // URL, as medirecord_auditor; "" is none
	Policy      string // C2SP tlog-policy file
	Sinks       []string
	Checkpoints []string // files of checkpoints that were kept
	Proofs      []string // receipts: tlog-proofs, each beside its entry
	MaxAge      time.Duration
	Dev         bool
	JSON        bool
	Out         io.Writer
	Progress    *os.File // nil: none is shown
	Now         func() time.Time
}

// audited is a verification under way.
type audited struct {
	AuditOptions
	policy *cosign.Policy
	trust  func(string) (*audit.Head, error)
	given  []audit.Head
	shelfs map[string]*trail.Outside // of an origin, once it was read
	bar    *bar

	mu       sync.Mutex
	tampered int64
	unproved int64
	broken   error // of the output
}

// VerifyTrail verifies exports, receipts or a database, tells of each finding on
// Out, and returns the verdict. The error is for what kept it from verifying.
func VerifyTrail(ctx context.Context, opt AuditOptions) (Verdict, error) {
	text, err := os.ReadFile(opt.Policy)
	if err != nil {
		return "", fmt.Errorf("the policy, which says whose signatures count: %w", err)
	}
	a := &audited{AuditOptions: opt, shelfs: map[string]*trail.Outside{}, bar: newBar(opt.Progress)}
	if a.policy, err = cosign.ParsePolicy(text); err != nil {
		return "", fmt.Errorf("the policy %s: %w", opt.Policy, err)
	}
	a.trust = trail.Trust(a.policy)
	if err := a.readCheckpoints(); err != nil {
		return "", err
	}
	if err := a.files(ctx); err != nil {
		return "", err
	}
	for _, p := range opt.Proofs {
		if err := a.proof(p); err != nil {
			return "", err
		}
	}
	if opt.Database != "" {
		if err := a.database(ctx); err != nil {
			return "", err
		}
	}
	a.bar.end()
	v := Clean
	switch {
	case a.tampered > 0:
		v = Tampered
	case a.unproved > 0:
		v = Unproved
	}
	a.say(map[string]any{"verdict": v, "findings": a.tampered + a.unproved}, "%s: %d findings", v, a.tampered+a.unproved)
	return v, a.broken
}

// say writes a line: of JSON, or for people.
func (a *audited) say(object any, format string, args ...any) {
	a.bar.clear()
	var err error
	if a.JSON {
		var b []byte
		if b, err = json.Marshal(object); err == nil {
			_, err = fmt.Fprintf(a.Out, "%s\n", b)
		}
	} else {
		_, err = fmt.Fprintf(a.Out, format+"\n", args...)
	}
	a.broken = cmp.Or(a.broken, err)
}

// tell tells of a finding. Findings come from several goroutines.
func (a *audited) tell(f audit.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.Tampering() {
		a.tampered++
	} else {
		a.unproved++
	}
	a.say(map[string]any{"finding": f}, "%s", f)
}

func (a *audited) readCheckpoints() error {
	for _, path := range a.Checkpoints {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h, err := a.trust(string(text))
		if err != nil {
			return fmt.Errorf("the checkpoint %s: %w", path, err)
		}
		h.From = path
		a.given = append(a.given, *h)
	}
	return nil
}

// outside returns what the sinks and the given checkpoints keep of a log.
func (a *audited) outside(ctx context.Context, origin string) (*trail.Outside, error) {
	if o, ok := a.shelfs[origin]; ok {
		return o, nil
	}
	var all []*trail.Outside
	given := &trail.Outside{}
	for _, h := range a.given {
		if h.Origin == origin {
			given.Heads = append(given.Heads, h)
		}
	}
	all = append(all, given)
	for _, s := range a.Sinks {
		shelf, err := openShelf(s)
		if err != nil {
			return nil, err
		}
		o, err := trail.ReadShelf(ctx, shelf, s, origin, a.trust, a.tell)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	out := trail.Join(all...)
	a.shelfs[origin] = out
	return out, nil
}

// dirShelf is a write-once sink in a directory.
type dirShelf string

// openShelf opens a sink for reading: a directory, or a bucket as the worker
// writes it.
func openShelf(at string) (trail.Shelf, error) {
	if strings.HasPrefix(at, "s3://") {
		return worm.Open(at)
	}
	dir := strings.TrimPrefix(at, "file://")
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("%s is neither the directory of a sink nor s3://bucket/prefix", at)
	}
	return dirShelf(dir), nil
}

// Get reads what was put there.
func (d dirShelf) Get(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), filepath.FromSlash(name)))
}

// List returns the names below a folder.
func (d dirShelf) List(_ context.Context, prefix string) (out []string, err error) {
	entries, err := os.ReadDir(filepath.Join(string(d), filepath.FromSlash(prefix)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.IsDir() && e.Name()[0] != '.' {
			out = append(out, prefix+e.Name())
		}
	}
	return out, err
}

// export is a file that is to be verified.
type export struct {
	path   string
	header audit.ExportHeader
}

// files verifies exports: each for itself, and whether those of one log follow
// each other and make its patient map.
func (a *audited) files(ctx context.Context) error {
	var all []export
	for _, path := range a.Files {
		h, err := readHeader(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, export{path, *h})
	}
	slices.SortStableFunc(all, func(x, y export) int {
		return cmp.Or(cmp.Compare(x.header.Origin, y.header.Origin), cmp.Compare(x.header.From, y.header.From))
	})
	var pm *audit.MapOfFiles
	end := int64(0)
	for i, e := range all {
		h := e.header
		fresh := i == 0 || all[i-1].header.Origin != h.Origin
		if fresh {
			end, pm = 0, nil
			if h.From == 0 {
				pm = &audit.MapOfFiles{Epoch: h.Epoch, Tell: a.tell}
			}
		} else if h.From > end {
			a.tell(audit.Finding{Kind: audit.Gap, Epoch: h.Epoch, Index: end, Last: h.From - 1, Note: "no file that was given covers them"})
			pm = nil
		}
		if err := a.file(ctx, e, pm); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
		end = max(end, h.To)
	}
	return nil
}

func readHeader(path string) (*audit.ExportHeader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return nil, audit.ErrExport
	}
	line, err := bufio.NewReaderSize(gz, 1<<20).ReadSlice('\n')
	h := &audit.ExportHeader{}
	if err != nil || json.Unmarshal(line, h) != nil || h.Format != audit.ExportFormat {
		return nil, audit.ErrExport
	}
	return h, nil
}

func (a *audited) file(ctx context.Context, e export, pm *audit.MapOfFiles) error {
	f, err := os.Open(e.path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int64(0)
	if st, err := f.Stat(); err == nil {
		size = st.Size()
	}
	out, err := a.outside(ctx, e.header.Origin)
	if err != nil {
		return err
	}
	trust := func(note string) (*audit.Head, error) {
		h, err := a.trust(note)
		if err == nil {
			if err = contradicts(h, out.Heads); err != nil {
				return nil, err
			}
		}
		if err == nil && pm != nil {
			pm.Expect(h)
		}
		return h, err
	}
	var known func(int64, int) []tlog.Hash
	if out.Proved() {
		known = func(from int64, n int) []tlog.Hash {
			if from >= out.Top.Size {
				return nil
			}
			return out.Leaves(from, int(min(int64(n), out.Top.Size-from)))
		}
	}
	var taken func(*audit.Matched)
	if pm != nil {
		taken = pm.Take
	}
	res, err := audit.VerifyExport(a.bar.reader(e.path, f, size), func(x audit.Finding) {
		x.Where = e.path
		a.tell(x)
	}, trust, known, taken)
	if err != nil {
		return err
	}
	h := res.Header
	line := map[string]any{"file": e.path, "origin": h.Origin, "epoch": h.Epoch, "month": h.Month, "from": h.From, "to": h.To, "entries": res.Rows, "proved": res.Proved}
	until := "not proved"
	if res.Proved {
		until = "proved by " + a.describe(res.Head, line)
	}
	if pm != nil && pm.Done() == h.Size && res.Proved {
		line["patient_map"] = true
		until += ", patient map included"
	}
	if res.Neighbours > 0 {
		line["neighbours"] = res.Neighbours
		until += fmt.Sprintf("; %d places are of a neighbouring month, by this file's word", res.Neighbours)
	}
	a.say(line, "%s: %s of %s, entries %d to %d: %d hashed, %s", e.path, h.Month, h.Origin, h.From, h.To-1, res.Rows, until)
	a.fresh(res.Head, e.header.Epoch, 0)
	return ctx.Err()
}

// contradicts reports a head that is of another tree than one of the same size.
func contradicts(h *audit.Head, heads []audit.Head) error {
	for _, o := range heads {
		if o.Origin == h.Origin && o.Size == h.Size && o.Root != h.Root {
			return fmt.Errorf("it is signed, and contradicts the checkpoint of %d entries in %s: the log shows two histories", o.Size, o.From)
		}
	}
	return nil
}

// describe says what a head proves, and until when.
func (a *audited) describe(h *audit.Head, line map[string]any) string {
	line["checkpoint"] = h.Size
	s := fmt.Sprintf("the checkpoint of %d entries", h.Size)
	if !h.At.IsZero() {
		line["cosigned_at"] = h.At
		s += ", cosigned " + h.At.UTC().Format(time.RFC3339)
	} else if !a.policy.NeedsWitnesses() {
		s += ", signed by the log alone: the policy asks for no witness"
	}
	return s
}

// fresh tells when what proves the log is older than it may be. Without a
// witness, the newest entry's own time is all there is to go by.
func (a *audited) fresh(h *audit.Head, epoch int32, newest int64) {
	if a.MaxAge <= 0 || h == nil {
		return
	}
	at := h.At
	if at.IsZero() && newest > 0 {
		at = time.UnixMilli(newest)
	}
	if age := a.Now().Sub(at); at.IsZero() || age > a.MaxAge {
		a.tell(audit.Finding{Kind: audit.Unproved, Epoch: epoch, Index: -1, Note: fmt.Sprintf("what proves it is from %s: older than %s", at.UTC().Format(time.RFC3339), a.MaxAge)})
	}
}

// proof verifies a receipt: FILE is the tlog-proof, and FILE.json beside it the
// entry with its columns as in an export.
func (a *audited) proof(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(path + ".json")
	if err != nil {
		return fmt.Errorf("the receipt needs its entry, as an export has it, beside it: %w", err)
	}
	var columns map[string]*string
	if err := json.Unmarshal(entry, &columns); err != nil {
		return fmt.Errorf("%s.json: want an object of the entry's columns", path)
	}
	r, err := audit.RecordOf(columns)
	if err != nil {
		return fmt.Errorf("%s.json: %w", path, err)
	}
	index, inclusion, note, err := audit.ParseProof(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	finding := audit.Finding{Index: index, ID: r.ID, Epoch: r.Epoch, Where: path}
	h, why := a.trust(note)
	if why != nil {
		finding.Kind, finding.Note = audit.BadHead, why.Error()
		if h != nil {
			finding.Kind = audit.Unproved
		}
		a.tell(finding)
		return nil
	}
	if audit.CheckProof(&h.Checkpoint, index, inclusion, r) != nil {
		finding.Kind, finding.Note = audit.Altered, "the entry is not the one that the receipt is of"
		a.tell(finding)
		return nil //nolint:nilerr // the finding is what became of it
	}
	line := map[string]any{"proof": path, "origin": h.Origin, "index": index, "event": r.ID, "proved": true}
	a.say(line, "%s: entry %d of %s, %s, proved by %s", path, index, h.Origin, r.ID, a.describe(h, line))
	return nil
}

// database verifies every epoch of a database.
func (a *audited) database(ctx context.Context) error {
	if err := postgres.CheckTransport("the database URL", a.Database, a.Dev); err != nil {
		return err
	}
	snap, err := trail.OpenSnapshot(ctx, a.Database, 2)
	if err != nil {
		return err
	}
	defer snap.Close(ctx)
	logs, err := snap.Logs(ctx)
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return a.logless(ctx, snap)
	}
	for _, l := range logs {
		v, err := snap.Verify(ctx, l, trail.VerifyOptions{
			Trust: a.trust, Tell: a.tell, Now: a.Now, Outside: func(origin string) (*trail.Outside, error) { return a.outside(ctx, origin) },
			Progress: func(done, of int64) { a.bar.show(fmt.Sprintf("epoch %d", l.Epoch), done, of) },
		})
		if err != nil {
			return err
		}
		line := map[string]any{"log": v, "proved": v.Head != nil}
		until := "not proved"
		if v.Head != nil {
			until = "proved by " + a.describe(v.Head, line)
		}
		if v.Pruned > 0 {
			until += fmt.Sprintf("; %d of months that were dropped are proved by their hashes only", v.Pruned)
		}
		if v.Unsealed > 0 {
			until += fmt.Sprintf("; %d more wait to be sealed", v.Unsealed)
		}
		a.say(line, "epoch %d, %s: %d entries, %d hashed, %s", v.Epoch, v.Origin, v.Size, v.Rows, until)
		if l.Epoch == logs[len(logs)-1].Epoch {
			a.fresh(v.Head, l.Epoch, v.Newest)
		}
	}
	return nil
}

// logless tells of a log that is gone with its epochs: of what is left of it, and
// of what is kept of it outside. It reports an error when there is nothing of
// either: then none was begun.
func (a *audited) logless(ctx context.Context, snap *trail.Snapshot) error {
	gone, err := snap.Leftovers(ctx)
	if err != nil {
		return err
	}
	if gone {
		a.tell(audit.Finding{Kind: audit.Missing, Index: -1, Note: "the epochs of the log are not in the database, and what was sealed in them is"})
	}
	for _, l := range a.policy.Logs() {
		kept, err := a.outside(ctx, l.Origin)
		if err != nil {
			return err
		}
		top := kept.Largest()
		if top == nil {
			continue
		}
		gone = true
		a.tell(audit.Finding{Kind: audit.RolledBack, Index: -1, Note: fmt.Sprintf("%s knows of %d entries of %s, and the database of no log", top.From, top.Size, l.Origin)})
	}
	if !gone {
		return errors.New("nothing of the trail has been sealed: is `medirecord worker` running?")
	}
	return nil
}

// bar shows how far a long work is: a bar on a terminal, nothing elsewhere.
type bar struct {
	to    *os.File
	last  time.Time
	shown bool
}

func newBar(to *os.File) *bar {
	if to == nil || !term.IsTerminal(int(to.Fd())) {
		return &bar{}
	}
	return &bar{to: to}
}

func (b *bar) show(what string, done, of int64) {
	if b.to == nil || of <= 0 || time.Since(b.last) < 200*time.Millisecond {
		return
	}
	const width = 30
	full := int(width * done / of)
	b.last, b.shown = time.Now(), true
	fmt.Fprintf(b.to, "\r\x1b[K[%s%s] %3d%%  %s", strings.Repeat("#", full), strings.Repeat("-", width-full), 100*done/of, what)
}

func (b *bar) clear() {
	if b.shown {
		fmt.Fprint(b.to, "\r\x1b[K")
		b.shown = false
	}
}

func (b *bar) end() { b.clear() }

// reader shows how much of a file has been read.
func (b *bar) reader(what string, r io.Reader, size int64) io.Reader {
	return &counted{r: r, read: func(n int64) { b.show(what, n, size) }}
}

type counted struct {
	r    io.Reader
	n    int64
	read func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.read(c.n)
	return n, err
}
