// SPDX-License-Identifier: Apache-2.0

// Package docs_test holds documents against what they tell of.
package docs_test

import (
	"context"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/medtest"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// listed is what the threat model says of the columns of one database: table
// and column to their form.
type listed map[string]string

// forms are the ways in which a column may hold what it holds.
var forms = []string{"plain", "sealed", "keyed hash", "wrapped key", "verifying key", "signature", "random", "hash", "ids"}

var (
	name = regexp.MustCompile("`([^`]+)`")
	line = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| ((?:`[a-z0-9_]+`(?:, )?)+) \\| ([a-z ]+) \\| (.{10,}) \\|$")
)

// section returns the columns that stand in the tables under a heading.
func section(t *testing.T, heading string) listed {
	t.Helper()
	text, err := os.ReadFile("threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n### "+heading+"\n")
	if !found {
		t.Fatalf("threat-model.md has no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n##")
	out := listed{}
	for _, m := range line.FindAllStringSubmatch(rest, -1) {
		for _, c := range name.FindAllStringSubmatch(m[2], -1) {
			column := m[1] + "." + c[1]
			if out[column] != "" {
				t.Errorf("%s lists %s twice", heading, column)
			}
			out[column] = m[3]
			if !slices.Contains(forms, m[3]) {
				t.Errorf("%s: %s has the form %q, want one of %q", heading, column, m[3], forms)
			}
		}
	}
	return out
}

// TestEveryColumnIsListed fails for a column that the threat model does not
// list: whoever adds one must say in which form it holds what, and why.
func TestEveryColumnIsListed(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	for heading, conn := range map[string]*pgx.Conn{"Clinical database": db.Super(t), "Key store": db.SuperKeys(t)} {
		want, types := columns(t, conn)
		got := section(t, heading)
		for _, c := range want {
			switch form := got[c]; {
			case form == "":
				t.Errorf("%s: %s is not in docs/threat-model.md: say in which form it is kept, and why it may be", heading, c)
			case form == "plain" && types[c] == "bytea", form == "sealed" && types[c] != "bytea":
				t.Errorf("%s: %s is said to be %s, and is %s", heading, c, form, types[c])
			}
		}
		for _, c := range slices.Sorted(maps.Keys(got)) {
			if !slices.Contains(want, c) {
				t.Errorf("%s: docs/threat-model.md lists %s, which is not there", heading, c)
			}
		}
	}
}

// columns lists the columns of all tables of ours. Partitions of the trail have
// the trail's.
func columns(t *testing.T, conn *pgx.Conn) (all []string, types map[string]string) {
	t.Helper()
	rows, err := conn.Query(context.Background(), `
select table_schema || '.' || table_name || '.' || column_name, data_type
  from information_schema.columns
 where table_schema not in ('pg_catalog', 'information_schema', 'audit_part')
 order by table_schema, table_name, ordinal_position`)
	if err != nil {
		t.Fatal(err)
	}
	types = map[string]string{}
	var column, kind string
	if _, err := pgx.ForEachRow(rows, []any{&column, &kind}, func() error {
		all, types[column] = append(all, column), kind
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Fatalf("got %d columns, want those of a migrated database", len(all))
	}
	return all, types
}

// TestEveryMemberOfAnEntryIsListed: the detail of an audit entry is one column
// and holds many things.
func TestEveryMemberOfAnEntryIsListed(t *testing.T) {
	t.Parallel()
	want := append(members("audit.event.detail", audit.Detail{}), members("audit.event.detail.break_glass", audit.BreakGlass{})...)
	got := slices.Sorted(maps.Keys(section(t, "The detail of an audit entry")))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// members lists the JSON names of a struct.
func members(of string, v any) (out []string) {
	typ := reflect.TypeOf(v)
	for i := range typ.NumField() {
		json, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		out = append(out, of+"."+json)
	}
	return out
}
