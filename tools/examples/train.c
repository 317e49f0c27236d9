/* SPDX-License-Identifier: Apache-2.0 */
/*
 * train PRESET OUT TEXT... - train a built-in model on text with nothing but libpenstock.
 * To build it elsewhere: cc train.c $(pkg-config --cflags --libs penstock)
 */
#include <penstock.h>

#include <stdio.h>

static int train(struct pst_trainer *trainer, struct pst_error *err)
{
	struct pst_step_info step;
	struct pst_eval_info eval;
	char path[4096];
	int rc = 0;

	while (!rc && !pst_trainer_done(trainer)) {
		rc = pst_trainer_step(trainer, &step, err);
		if (!rc && step.step % 10 == 0)
			printf("step %u: loss %.3f\n", step.step, step.loss);
	}
	if (!rc)
		rc = pst_trainer_evaluate(trainer, &eval, err);
	if (!rc)
		rc = pst_trainer_save(trainer, path, sizeof(path), err);
	if (!rc)
		printf("held-out text: %.3f bits per byte\nsaved: %s\n", eval.bits_per_byte, path);
	return rc;
}

int main(int argc, char **argv)
{
	struct pst_trainer *trainer = NULL;
	struct pst_train_options options;
	struct pst_error err = {0};
	int rc;

	if (argc < 4) {
		fprintf(stderr, "usage: %s PRESET OUT TEXT...\n", argv[0]);
		return 2;
	}
	pst_train_defaults(&options);
	options.preset = argv[1];
	options.out = argv[2];
	options.data = (const char *const *)argv + 3;
	options.ndata = (size_t)argc - 3;
	options.embedded = 1; /* servers and workers as threads: no other program is needed */
	options.steps = 50;
	rc = pst_trainer_open(&options, &trainer, &err);
	if (!rc)
		rc = train(trainer, &err);
	if (rc)
		fprintf(stderr, "%s: %s\n", argv[0], err.text);
	pst_trainer_close(trainer);
	return rc ? 1 : 0;
}
