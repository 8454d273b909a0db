package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
	"gopkg.in/yaml.v3"
)

// YAML loads a file of settings, for kong.Configuration. The file is one flat mapping; its keys are the names of the
// flags. A key that is no setting, that stands there twice or that has no value is an error which names its line.
func YAML(r io.Reader) (kong.Resolver, error) {
	name := "config"
	if f, ok := r.(interface{ Name() string }); ok {
		name = f.Name()
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if err := checkKeys(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file, err := kongyaml.Loader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, oneLine(err))
	}
	return kong.ResolverFunc(func(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if !known(flag.Name) || inEnvironment(flag) {
			return nil, nil
		}
		// The file is flat: settings are looked up as if they belonged to the program and not to one of its commands.
		value, err := file.Resolve(ctx, &kong.Path{App: ctx.Model}, flag)
		if err != nil || value == nil {
			return nil, err
		}
		text, err := asText(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return text, nil
	}), nil
}

// inEnvironment says whether the environment has the flag; kong would let the file win over it.
func inEnvironment(flag *kong.Flag) bool {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return true
		}
	}
	return false
}

// checkKeys finds what a decoder into a map would let pass.
func checkKeys(text []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return oneLine(err)
	}
	if len(doc.Content) == 0 {
		return nil // empty, or comments only
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: expected settings like \"node-id: 1\"", root.Line)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch {
		case !known(key.Value):
			return fmt.Errorf("line %d: unknown setting %q%s", key.Line, key.Value, suggestion(key.Value))
		case seen[key.Value] > 0:
			return fmt.Errorf("line %d: %s is set in line %d already", key.Line, key.Value, seen[key.Value])
		case value.Tag == "!!null":
			return fmt.Errorf("line %d: %s has no value: give it one or remove the line", key.Line, key.Value)
		}
		seen[key.Value] = key.Line
	}
	return nil
}

// asText writes a YAML value as the flag's text: lists and mappings with commas, as the flags take them.
func asText(value any) (string, error) {
	var parts []string
	add := func(prefix string, item any) error {
		switch item.(type) {
		case string, bool, int, int64, uint64, float64:
			parts = append(parts, prefix+fmt.Sprint(item))
			return nil
		}
		return errors.New("expected text or a number")
	}
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			if err := add("", item); err != nil {
				return "", err
			}
		}
	case map[any]any:
		for key, item := range v {
			if err := add(fmt.Sprint(key)+"=", item); err != nil {
				return "", err
			}
		}
	case map[string]any:
		for key, item := range v {
			if err := add(key+"=", item); err != nil {
				return "", err
			}
		}
	default:
		if err := add("", v); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, ","), nil
}

// suggestion is the setting that an unknown name is closest to, if it is close.
func suggestion(name string) string {
	best, distance := "", 4
	for _, s := range All() {
		if d := editDistance(strings.ReplaceAll(name, "_", "-"), s.Name); d < distance && known(s.Name) {
			best, distance = s.Name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance counts the bytes to insert, remove or replace to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// oneLine makes the decoder's errors, which may have a line each, into one line.
func oneLine(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return errors.New(strings.Join(lines, " "))
}
