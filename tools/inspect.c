/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/penstock.h"

#include <stdio.h>
#include <string.h>

static json_t *shape_of(const struct pst_tensor_desc *t)
{
	json_t *shape = json_array();

	for (uint32_t d = 0; d < t->ndim; d++)
		json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
	return shape;
}

static int to_json(const struct pst_inspect *in, const char *path)
{
	struct pst_model_info m;
	json_t *tensors = json_array(), *root;
	struct pst_tensor_desc t;
	uint64_t bytes = 0;
	uint32_t step;

	pst_inspect_model(in, &m);
	for (size_t i = 0; !pst_inspect_tensor(in, i, &t); i++) {
		bytes += t.bytes;
		json_array_append_new(tensors, json_pack("{s:s, s:s, s:o, s:I}", "name", t.name,
							 "dtype", t.dtype, "shape", shape_of(&t),
							 "bytes", (json_int_t)t.bytes));
	}
	root = json_pack("{s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:o}",
			 "checkpoint", pst_inspect_dir(in), "parameters", (json_int_t)m.parameters,
			 "active", (json_int_t)m.active, "layers", (int)m.layers, "hidden",
			 (int)m.hidden, "experts", (int)m.experts, "experts_per_token", (int)m.topk,
			 "shared_experts", (int)m.shared, "vocab", (int)m.vocab, "files",
			 (int)m.files, "bytes", (json_int_t)bytes, "tensors", tensors);
	if (!pst_inspect_step(in, &step))
		json_object_set_new(root, "step", json_integer(step));
	return write_json("inspect", path, root);
}

static void to_terminal(const struct pst_inspect *in)
{
	struct pst_model_info m;
	struct pst_tensor_desc t;
	uint64_t bytes = 0;
	char buf[16];
	uint32_t step;

	pst_inspect_model(in, &m);
	printf("%s\n", pst_inspect_dir(in));
	printf("  %.2f M parameters, %.2f M of them at work for a token\n",
	       1e-6 * (double)m.parameters, 1e-6 * (double)m.active);
	printf("  %u layers (%u dense), hidden %u, %u experts of which %u and %u shared work, "
	       "vocabulary %u\n",
	       m.layers, m.dense_layers, m.hidden, m.experts, m.topk, m.shared, m.vocab);
	if (!pst_inspect_step(in, &step))
		printf("  after step %u\n", step);
	printf("\n  %-58s %-6s %-16s %s\n", "tensor", "format", "shape", "bytes");
	for (size_t i = 0; !pst_inspect_tensor(in, i, &t); i++) {
		char shape[128] = "scalar";
		size_t n = 0;

		for (uint32_t d = 0; d < t.ndim && n < sizeof(shape); d++)
			n += (size_t)snprintf(shape + n, sizeof(shape) - n, "%s%llu",
					      d ? " x " : "", (unsigned long long)t.shape[d]);
		printf("  %-58s %-6s %-16s %llu\n", t.name, t.dtype, shape,
		       (unsigned long long)t.bytes);
		bytes += t.bytes;
	}
	printf("\n  %zu tensors in %u file%s, %s\n", pst_inspect_count(in), m.files,
	       m.files == 1 ? "" : "s", human_bytes((double)bytes, buf));
}

int cmd_inspect(int argc, char **argv)
{
	struct opt_list words = {0};
	const char *json = NULL;
	uint32_t quick = 0;
	const struct option_row rows[] = {
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "Show what the checkpoint in DIR holds, and check it: headers, shards, names and\n"
		 "shapes against its config.json, and that every number is finite.",
		 NULL},
		{"headers-only", NULL, OPT_FLAG, &quick, 0, 0, "do not read the numbers", NULL},
		{"json", "FILE", OPT_TEXT, &json, 0, 0, "the same as JSON; - for stdout", NULL},
	};
	int rc = parse_options(argc, argv, "inspect", "DIR [OPTION...]", rows,
			       sizeof(rows) / sizeof(*rows), &words);
	struct pst_inspect *in = NULL;
	struct pst_error err = {0};

	if (rc < 0 && words.count != 1)
		rc = usage_error("inspect", words.count ? "more than one DIR" : "DIR is missing");
	if (rc < 0 && pst_inspect_open(words.item[0], !quick, &in, &err) < 0)
		rc = say_error("inspect", &err);
	if (rc < 0 && (!json || strcmp(json, "-")))
		to_terminal(in);
	if (rc < 0)
		rc = json ? to_json(in, json) : EXIT_DONE;
	pst_inspect_close(in);
	free_list(&words);
	return rc;
}
