// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What an import is wanted to do.
const (
	wantedResources = 2000 // a second
	wantedMiB       = 300
)

// imported is one run of `medirecord import`.
type imported struct {
	patients, unchanged, failed, resources float64
	took, cpu                              time.Duration
	peakMiB                                float64
}

func (i imported) perSecond() float64 { return i.resources / i.took.Seconds() }

// importing measures the import of the sample data, and the same import again,
// which must change nothing.
func importing(ctx context.Context, b *bench, r *result) error {
	source, err := filepath.Abs(b.data)
	if err != nil {
		return err
	}
	files, bytes, err := sizeOf(source)
	if err != nil || files == 0 {
		b.say("%s is not here: skipped", b.data)
		r.note("Skipped: %s is not here.", b.data)
		return nil
	}
	s, err := b.start(ctx, 0)
	if err != nil {
		return err
	}
	defer s.stop()
	before, err := s.disk(ctx)
	if err != nil {
		return err
	}
	b.say("importing %d files, %.0f MiB", files, mib(bytes))
	first, err := b.importOnce(ctx, s, source)
	if err != nil {
		return err
	}
	b.say("%.0f resources in %s, and again", first.resources, first.took.Round(time.Millisecond))
	second, err := b.importOnce(ctx, s, source)
	if err != nil {
		return err
	}
	if first.failed != 0 || second.failed != 0 || second.patients != 0 || second.unchanged != first.patients {
		return fmt.Errorf("imported %.0f patients, %.0f failed; the second time %.0f, %.0f failed and %.0f unchanged: want none failed and all unchanged",
			first.patients, first.failed, second.patients, second.failed, second.unchanged)
	}
	after, err := s.disk(ctx)
	if err != nil {
		return err
	}
	entries, err := s.count(ctx, "select count(*) from audit.event where action = 'import' and outcome = 'success'")
	if err != nil {
		return err
	}
	r.figure("patients", first.patients, "", "bundles, each one transaction with one audit entry")
	r.figure("resources", first.resources, "", "")
	r.figure("seconds", first.took.Seconds(), "s", "first import")
	r.figure("resources_per_second", first.perSecond(), "1/s", fmt.Sprintf("wanted: at least %s", thousands(wantedResources)))
	r.figure("peak_rss_mib", first.peakMiB, "MiB", fmt.Sprintf("of the import process; wanted: below %d", wantedMiB))
	r.figure("cpu_seconds", first.cpu.Seconds(), "s", "of the import process; PostgreSQL's not counted")
	r.figure("again_seconds", second.took.Seconds(), "s", "second import: everything unchanged")
	r.figure("again_unchanged", second.unchanged, "", "patients")
	r.figure("again_resources_per_second", second.perSecond(), "1/s", "")
	r.figure("again_peak_rss_mib", second.peakMiB, "MiB", "")
	r.figure("entries", float64(entries), "", "audit entries, of both imports")
	r.figure("source_mib", mib(bytes), "MiB", "the files as they are, compressed")
	r.figure("clinical_database_mib", mib(after[0]-before[0]), "MiB", "grown by")
	r.figure("keystore_database_mib", mib(after[1]-before[1]), "MiB", "grown by")
	r.ratio("speed_over_wanted", first.perSecond()/wantedResources, "resources a second ÷ wanted")
	r.ratio("memory_over_allowed", first.peakMiB/wantedMiB, "peak memory ÷ allowed")
	r.ratio("again_over_first", second.took.Seconds()/first.took.Seconds(), "time of an import that changes nothing ÷ of the first")
	r.ratio("databases_over_source", float64(after[0]-before[0]+after[1]-before[1])/float64(max(1, bytes)), "disk ÷ compressed source")
	return nil
}

var (
	sumLine  = regexp.MustCompile(`(\d+) patients imported, (\d+) unchanged, (\d+) failed: (\d+) resources`)
	sumParts = 5
)

// importOnce runs `medirecord import` and reads what it says.
func (b *bench) importOnce(ctx context.Context, s *system, source string) (imported, error) {
	cmd := exec.CommandContext(ctx, s.cmd.Path, "import", "--data", s.dir, "--practice", "practice-north", source) //nolint:gosec // our own program
	said := filepath.Join(b.dir, "import.log")
	log, err := os.OpenFile(said, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return imported{}, err
	}
	defer log.Close() //nolint:errcheck // read by its name
	cmd.Stdout, cmd.Stderr = log, log
	start := time.Now()
	failed := cmd.Run()
	took := time.Since(start)
	m := sumLine.FindStringSubmatch(text(said))
	if len(m) != sumParts {
		return imported{}, fmt.Errorf("medirecord import: %w\n%s", failed, tail(said))
	}
	var n [4]float64
	for i := range n {
		n[i], _ = strconv.ParseFloat(m[i+1], 64)
	}
	i := imported{patients: n[0], unchanged: n[1], failed: n[2], resources: n[3], took: took}
	i.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		i.peakMiB = float64(u.Maxrss) / 1024 // KiB on Linux
	}
	if failed != nil {
		return i, fmt.Errorf("medirecord import: %w\n%s", failed, tail(said))
	}
	return i, nil
}

// disk returns the sizes of the clinical database and of the key store.
func (s *system) disk(ctx context.Context) ([2]int64, error) {
	var out [2]int64
	for i, db := range []string{s.Database.Name, s.Database.Name + "_keystore"} {
		n, err := s.count(ctx, "checkpoint; select pg_database_size('"+db+"')")
		if err != nil {
			return out, err
		}
		out[i] = n
	}
	return out, nil
}

// sizeOf counts the bundles of a folder.
func sizeOf(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), ".json") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files++
			bytes += info.Size()
		}
		return err
	})
	return files, bytes, err
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
