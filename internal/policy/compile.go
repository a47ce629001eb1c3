// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

const (
	// packageName is the one package of a policy file.
	packageName = "data.medirecord"
	// maxFile is more than any policy a person reads.
	maxFile = 1 << 20
	// loadLimit bounds the checks of a policy file, which take a quarter of a
	// second on an idle machine: one that takes this long is refused rather
	// than waited for. It is generous so that a starved machine refuses none.
	loadLimit = 5 * time.Minute
	// evalLimit bounds one evaluation of a file in force; it takes a tenth of
	// a millisecond.
	evalLimit = time.Second
)

// Load compiles a policy file and returns its engine. It reports an error, and
// says why in words, when the file does not compile, uses a built-in function
// that is not allowed, breaks a compiled rule or fails one of its cases.
func Load(ctx context.Context, src Source) (*Engine, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	e, err := compile(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := e.checkInvariants(ctx, probes()); err != nil {
		return nil, fmt.Errorf("%s %w", src.Name, err)
	}
	if failures := e.RunCases(ctx, src.Cases); len(failures) > 0 {
		return nil, fmt.Errorf("%s fails its cases: %w", src.Name, joined(failures))
	}
	return e, nil
}

// compile returns an engine for the text, without trying what it decides.
func compile(ctx context.Context, src Source) (*Engine, error) {
	if len(src.Rego) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", src.Name, maxFile)
	}
	capabilities := capabilities()
	module, err := parse(src.Name, src.Rego, capabilities)
	if err != nil {
		return nil, err
	}
	modules := map[string]*ast.Module{src.Name: module}
	base, want := module, packageName
	if src.Base != nil {
		if base, err = parse(FileName, src.Base, capabilities); err != nil {
			return nil, err
		}
		if own := buildsOn.FindSubmatch(src.Rego); own != nil {
			want += "." + string(own[1])
		}
		modules[FileName] = base
	}
	if module.Package.Path.String() != want || base.Package.Path.String() != packageName {
		return nil, fmt.Errorf("%s does not compile: its package is not medirecord, or medirecord.<name> for a file that builds on %s", src.Name, FileName)
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities).WithStrict(true).WithDefaultRegoVersion(ast.RegoV1)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("%s does not compile: %w", src.Name, compileErrors(compiler))
	}
	query, err := prepare(ctx, compiler, want+".decision")
	if err != nil {
		return nil, fmt.Errorf("%s does not compile: %w", src.Name, err)
	}
	sum := sha256.Sum256(slices.Concat(src.Rego, src.Base))
	e := &Engine{
		name: src.Name, revision: hex.EncodeToString(sum[:6]),
		compiler: compiler, decision: query, rules: rulesOf(base),
	}
	for i := range e.cache {
		e.cache[i].answers = map[facts]answer{}
	}
	return e, nil
}

func parse(name string, text []byte, capabilities *ast.Capabilities) (*ast.Module, error) {
	module, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{
		Capabilities: capabilities, RegoVersion: ast.RegoV1,
	})
	if err != nil {
		return nil, fmt.Errorf("%s does not compile: %w", name, err)
	}
	if module == nil {
		return nil, fmt.Errorf("%s does not compile: it is empty", name)
	}
	return module, nil
}

func prepare(ctx context.Context, compiler *ast.Compiler, query string) (rego.PreparedEvalQuery, error) {
	return rego.New(
		rego.Compiler(compiler),
		rego.Query(query),
		rego.Strict(true),
		rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
}

// rulesOf lists the rules that a query can name: those without arguments.
func rulesOf(module *ast.Module) []string {
	var names []string
	for _, rule := range module.Rules {
		if len(rule.Head.Args) > 0 {
			continue
		}
		if v, ok := rule.Head.Ref()[0].Value.(ast.Var); ok && !slices.Contains(names, string(v)) {
			names = append(names, string(v))
		}
	}
	return names
}

// allowedPrefixes are the families of built-in functions that a policy may use,
// allowedNames the single ones. A list of what is allowed, not of what is
// forbidden: a function that a new OPA adds does not compile until someone has
// looked at it. All are pure, so that an answer can be remembered, and none can
// be made to run for long.
var (
	allowedPrefixes = []string{"array.", "object.", "internal.member_"}
	allowedNames    = []string{
		"eq", "equal", "neq", "lt", "lte", "gt", "gte", "assign", "plus", "minus", "and", "or",
		"intersection", "union", "count", "max", "min", "sum", "sort", "concat", "contains", "startswith", "endswith",
		"lower", "upper", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string",
	}
)

func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		family := slices.ContainsFunc(allowedPrefixes, func(p string) bool { return strings.HasPrefix(b.Name, p) })
		return b.Nondeterministic || !family && !slices.Contains(allowedNames, b.Name)
	})
	c.AllowNet = []string{}
	return c
}

func compileErrors(c *ast.Compiler) error {
	var errs []error
	for i, err := range c.Errors {
		if i == 5 {
			break
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
