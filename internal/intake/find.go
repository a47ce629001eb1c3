// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// files is what there is to import.
type files struct {
	bundles []file
	sets    []set
	ignored []string
	bytes   int64
}

// file is one file; found says that it was in a directory and not named.
type file struct {
	path  string
	size  int64
	found bool
}

// set is the NDJSON files of one directory: together they hold charts.
type set struct {
	dir   string
	files []file
}

// ndjsonName is a Bulk Data file of resources: Patient.ndjson,
// Observation.000.ndjson.gz. Others, as log.ndjson, hold no resources.
var ndjsonName = regexp.MustCompile(`^[A-Z][A-Za-z]+(\.\d+)?\.ndjson(\.gz)?$`)

// find lists what the paths name and what their directories hold, in order. A
// directory's symbolic links are not followed: they could lead anywhere.
func find(paths []string) (files, error) {
	f := finder{seen: map[string]bool{}, sets: map[string]int{}}
	for _, p := range paths {
		if err := f.path(p); err != nil {
			return files{}, err
		}
	}
	if len(f.out.bundles)+len(f.out.sets) == 0 {
		return files{}, med.Invalid.New("No bundle (.json, .json.gz) and no NDJSON file (Type.ndjson, Type.000.ndjson.gz) is there.")
	}
	return f.out, nil
}

type finder struct {
	out  files
	seen map[string]bool
	sets map[string]int // directory to its place in out.sets
}

func (f *finder) path(p string) error {
	info, err := os.Stat(p)
	if err != nil {
		return fmt.Errorf("looking at a path to import: %w", err)
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() || !f.take(file{path: p, size: info.Size()}) {
			return med.Invalid.New("A path to import is neither a directory nor a .json, .json.gz or NDJSON file.")
		}
		return nil
	}
	return filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("listing a directory to import: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("looking at a file to import: %w", err)
		}
		if !f.take(file{path: path, size: info.Size(), found: true}) {
			f.out.ignored = append(f.out.ignored, path)
		}
		return nil
	})
}

// take notes a file and says whether it could hold charts.
func (f *finder) take(x file) bool {
	name := filepath.Base(x.path)
	bare := strings.TrimSuffix(name, ".gz")
	ndjson := ndjsonName.MatchString(name)
	if !ndjson && !strings.HasSuffix(bare, ".json") {
		return false
	}
	abs, err := filepath.Abs(x.path)
	if err != nil {
		abs = x.path
	}
	if f.seen[abs] {
		return true
	}
	f.seen[abs] = true
	f.out.bytes += x.size
	if !ndjson {
		f.out.bundles = append(f.out.bundles, x)
		return true
	}
	dir := filepath.Dir(abs)
	i, ok := f.sets[dir]
	if !ok {
		i = len(f.out.sets)
		f.sets[dir] = i
		f.out.sets = append(f.out.sets, set{dir: filepath.Dir(x.path)})
	}
	f.out.sets[i].files = append(f.out.sets[i].files, x)
	slices.SortFunc(f.out.sets[i].files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return true
}
