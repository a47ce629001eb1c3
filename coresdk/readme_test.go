// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"os"
	"strings"
	"testing"
)

func TestTheReadmeShowsTheExampleAsItIs(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	noError(t, err)
	example, err := os.ReadFile("../examples/ginservice/main.go")
	noError(t, err)
	_, program, found := strings.Cut(string(example), "\n\n") // without the licence line
	if !found || !strings.Contains(string(readme), "```go\n"+program+"```\n") {
		t.Error("README.md does not hold examples/ginservice/main.go word for word")
	}
}

// The package comment is the manual; a variable it forgets is not documented.
func TestTheReadmeNamesEveryVariableOfTheManual(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	noError(t, err)
	manual, err := os.ReadFile("doc.go")
	noError(t, err)
	for _, word := range strings.FieldsFunc(string(manual), func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') }) {
		if strings.HasPrefix(word, "CORESDK_") && !strings.Contains(string(readme), word) {
			t.Errorf("README.md does not name %s", word)
		}
	}
}
