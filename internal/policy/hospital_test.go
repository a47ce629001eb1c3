// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

func hospitalSource(t testing.TB) Source {
	t.Helper()
	src, err := Read("builtin:hospital")
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// everything lists all that each role alone can ask of what hospital.rego
// speaks of. Records come in two kinds: more would say the same.
func everything() []facts {
	var all []facts
	for _, r := range roleWords {
		for number := 1; number < len(questions); number++ {
			if q := &questions[number]; q.treating || q.reason {
				all = append(all, space(rolesOf([]med.Role{r}), uint8(number))...) //nolint:gosec // a short list
			}
		}
	}
	return slices.DeleteFunc(all, func(f facts) bool {
		kind := kindWords[f.kind]
		return kind != "" && kind != med.KindObservation && kind != med.KindClaim
	})
}

func TestHospitalOnlyTakesAway(t *testing.T) {
	t.Parallel()
	all := everything()
	base, err := compiled(t, defaultSource(t)).answers(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	hospital, err := compiled(t, hospitalSource(t)).answers(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	at := map[facts]int{}
	less := 0
	for i, f := range all {
		at[f] = i
		if wider := widerThan(hospital[i], base[i]); wider != "" {
			t.Errorf("%s: hospital.rego is wider: %s", f, wider)
		}
		if f.treating || f.reason || f.relation != relationSame || f.grant {
			if diff := cmp.Diff(base[i], hospital[i]); diff != "" {
				t.Errorf("%s is not as in medirecord.rego (-medirecord +hospital):\n%s", f, diff)
			}
		} else if widerThan(base[i], hospital[i]) != "" {
			less++
			if f.roles.has(isPatient | isOfficer | isBreakGlass | services) {
				t.Errorf("%s is narrower", f)
			}
		}
	}
	if less < 50 {
		t.Errorf("hospital.rego takes away %d answers, want many", less)
	}
	// Nobody is blocked, and nobody loses by treating or by giving a reason.
	for i, f := range all {
		for _, change := range []func(*facts){func(g *facts) { g.treating = true }, func(g *facts) { g.reason = true }} {
			g := f
			change(&g)
			j, ok := at[g]
			if !ok {
				continue
			}
			for _, d := range [][]med.Decision{base, hospital} {
				if wider := widerThan(d[i], d[j]); wider != "" {
					t.Errorf("%s is narrower than %s: %s", g, f, wider)
				}
			}
		}
	}
}

// Several roles are as little a way round the reason as one.
func TestSeveralRolesGiveAReasonToo(t *testing.T) {
	t.Parallel()
	e := compiled(t, hospitalSource(t))
	for set := roleSet(1); set <= isPatient|staff; set++ {
		if !set.has(isNurse | isClinician | isAdmin) {
			continue
		}
		f := facts{roles: set, mfa: mfaFresh, question: 1, relation: relationSame, state: stateLive, sensitivity: sensitivityNormal}
		d, err := e.decide(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for field, show := range d.View {
			if show != med.Hide && !slices.Contains([]med.Field{"mrn", "name", "sex", "dob"}, field) {
				t.Errorf("%s: %s is %s", f, field, show)
			}
		}
	}
}

func TestAFileThatBuildsOnAnotherNeedsIt(t *testing.T) {
	t.Parallel()
	src := hospitalSource(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "hospital.rego")
	write(t, path, src.Rego)
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "must lie beside it") {
		t.Errorf("error %v, want one that says what is missing", err)
	}
	write(t, filepath.Join(dir, FileName), src.Base)
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), got); err != nil {
		t.Error(err)
	}
	t.Run("its revision is that of both", func(t *testing.T) {
		t.Parallel()
		other := edit(t, defaultSource(t), "max_rows := 200", "max_rows := 100")
		if compiled(t, Source{Name: "h", Rego: src.Rego, Base: other.Rego}).revision == compiled(t, src).revision {
			t.Error("another base has the same revision")
		}
	})
	t.Run("a base that breaks a compiled rule is refused", func(t *testing.T) {
		t.Parallel()
		bad := edit(t, defaultSource(t), `"staff": {"relation": {"same_practice"}, "mfa": "done"`, `"staff": {"relation": {"same_practice", "other_practice"}, "mfa": "done"`)
		if _, err := Load(t.Context(), Source{Name: "h", Rego: src.Rego, Base: bad.Rego}); err == nil || !strings.Contains(err.Error(), "another practice") {
			t.Errorf("error %v", err)
		}
	})
	for _, path := range []string{"builtin:nothing", "builtin:../medirecord", "builtin:"} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "builtin:hospital") {
			t.Errorf("%s: error %v, want one that names the policies there are", path, err)
		}
	}
}

func TestCasesOfAnotherFolder(t *testing.T) {
	t.Parallel()
	if err := os.CopyFS(filepath.Join(t.TempDir(), "x"), os.DirFS("../../policy")); err != nil {
		t.Fatal(err)
	}
	r, err := Test(t.Context(), "builtin:medirecord", "../../policy/cases/hospital")
	if err != nil || r.OK() {
		t.Errorf("medirecord.rego passes the cases of hospital.rego: %+v, error %v", r, err)
	}
	if _, err := Test(t.Context(), "", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no cases") {
		t.Errorf("error %v of a folder without cases", err)
	}
}
