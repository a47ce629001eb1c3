// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// resultsFile keeps the last published run of each benchmark. What stands
// outside the markers is written by hand and stays.
const resultsFile = "bench/RESULTS.md"

// publish replaces the benchmark's part of the file.
func publish(r *result) error {
	old, err := os.ReadFile(resultsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat("bench"); err != nil {
			return fmt.Errorf("-write writes %s: run it in the root of the repository", resultsFile)
		}
	}
	return os.WriteFile(resultsFile, []byte(placed(string(old), r)), 0o644) //nolint:gosec // published
}

func placed(text string, r *result) string {
	begin, end := fmt.Sprintf("<!-- begin %s -->\n", r.Name), fmt.Sprintf("<!-- end %s -->\n", r.Name)
	part := begin + r.markdown() + end
	before, rest, found := strings.Cut(text, begin)
	if !found {
		return text + fmt.Sprintf("\n## %s\n\n", r.Name) + part
	}
	_, after, _ := strings.Cut(rest, end)
	return before + part + after
}
