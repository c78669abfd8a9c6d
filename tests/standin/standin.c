// SPDX-License-Identifier: Apache-2.0
// Stands in for a runtime in tests: it writes down what it was handed, and does nothing else.
//
// It is told what to be by files in its own folder, so that its arguments and environment stay the caller's:
//   NAME.version, NAME.features   what these two commands print, NAME being the binary's own
//   NAME.trouble                  its Nth line is what goes wrong with the Nth such question: an exit code after no output, -N
//                                 for death by signal N, `half` of the output, `hang`, `flood`; any other is no trouble
//   NAME.becomes                  the program that it executes instead, with its arguments
//   NAME.end                      how it ends: an exit code, or -N for death by signal N
//   stdin                         if there, standard input is read to its end
// and leaves there:
//   NAME.asked                    one line for each --version and features, which names what its caller has not open of 0 to 2
//   report                        one line for each thing it found, byte strings in hexadecimal

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static char own[PATH_MAX];

static FILE *open_in_folder(const char *name, const char *suffix, const char *mode)
{
	char path[PATH_MAX + NAME_MAX];
	const char *base = strrchr(own, '/') + 1;
	snprintf(path, sizeof path, "%.*s%s%s", (int)(base - own), own, name ? name : base, suffix);
	return fopen(path, mode);
}

static void bytes(FILE *out, const char *what, const char *text, size_t length)
{
	fprintf(out, "%s ", what);
	for (size_t i = 0; i < length; i++)
		fprintf(out, "%02x", (unsigned char)text[i]);
	fputc('\n', out);
}

static void link_target(FILE *out, const char *what, const char *path)
{
	char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof target);
	bytes(out, what, target, length < 0 ? 0 : (size_t)length);
}

static void descriptors(FILE *out)
{
	DIR *folder = opendir("/proc/self/fd");
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		int fd = atoi(entry->d_name);
		char what[64], path[64];
		if (entry->d_name[0] == '.' || fd == dirfd(folder))
			continue;
		snprintf(what, sizeof what, "fd %d", fd);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		link_target(out, what, path);
	}
	closedir(folder);
}

static void process_state(FILE *out)
{
	static const char *const wanted[] = { "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "Umask:", "Threads:",
		"CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "NoNewPrivs:", "Seccomp:" };
	static const char *const namespaces[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "time_for_children", "user", "uts" };
	char line[4096], what[64], path[64];
	FILE *status = fopen("/proc/self/status", "r");
	while (status && fgets(line, sizeof line, status))
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				fputs(line, out);
	fclose(status);
	for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
		snprintf(what, sizeof what, "ns %s", namespaces[i]);
		snprintf(path, sizeof path, "/proc/self/ns/%s", namespaces[i]);
		link_target(out, what, path);
	}
	int death_signal = 0;
	prctl(PR_GET_PDEATHSIG, &death_signal);
	fprintf(out, "pdeathsig %d\npid %d\nppid %d\npgid %d\nsid %d\n", death_signal, getpid(), getppid(), getpgrp(), getsid(0));
	link_target(out, "cwd", "/proc/self/cwd");
}

// What goes wrong with this question, which is the last one that was written down; "" if nothing.
static const char *trouble(void)
{
	static char line[64];
	char asked[256];
	FILE *questions = open_in_folder(NULL, ".asked", "r");
	FILE *troubles = open_in_folder(NULL, ".trouble", "r");
	while (troubles && fgets(asked, sizeof asked, questions))
		if (!fgets(line, sizeof line, troubles))
			return "";
	return line;
}

static int print(const char *suffix, const char *asked)
{
	char text[4096];
	FILE *log = open_in_folder(NULL, ".asked", "a");
	fprintf(log, "%s", asked);
	for (int fd = 0; fd < 3; fd++) {
		char path[64], target[PATH_MAX];
		snprintf(path, sizeof path, "/proc/%d/fd/%d", getppid(), fd);
		if (readlink(path, target, sizeof target) == -1)
			fprintf(log, " %d", fd);
	}
	fprintf(log, "\n");
	fclose(log);
	const char *wrong = trouble();
	int code;
	if (strcmp(wrong, "hang\n") == 0)
		pause();
	while (strcmp(wrong, "flood\n") == 0)
		puts("{\"linux\":");
	if (sscanf(wrong, "%d", &code) == 1) {
		if (code < 0)
			raise(-code);
		return code;
	}
	FILE *file = open_in_folder(NULL, suffix, "r");
	if (!file) {
		fprintf(stderr, "there is no command %s\n", asked);
		return 1;
	}
	size_t length = fread(text, 1, sizeof text, file);
	fwrite(text, 1, strcmp(wrong, "half\n") == 0 ? length / 2 : length, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
	if (length <= 0)
		return 99;
	FILE *becomes = open_in_folder(NULL, ".becomes", "r");
	if (becomes) {
		static char program[PATH_MAX];
		argv[0] = program;
		if (fgets(program, sizeof program, becomes))
			execv(program, argv);
		return 97;
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return print(".version", argv[1]);
	if (argc == 2 && strcmp(argv[1], "features") == 0)
		return print(".features", argv[1]);

	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	// First, before anything else is open.
	descriptors(out);
	for (int i = 0; i < argc; i++)
		bytes(out, i == 0 ? "argv0" : "arg", argv[i], strlen(argv[i]));
	for (char **entry = environ; *entry; entry++)
		bytes(out, "env", *entry, strlen(*entry));
	process_state(out);
	FILE *asked = open_in_folder("stdin", "", "r");
	if (asked) {
		char input[65536];
		ssize_t got;
		fclose(asked);
		while ((got = read(0, input, sizeof input)) > 0)
			bytes(out, "stdin", input, (size_t)got);
	}
	fclose(out);

	FILE *report = open_in_folder("report", "", "w");
	fwrite(text, 1, size, report);
	fclose(report);

	int end = 0;
	FILE *ending = open_in_folder(NULL, ".end", "r");
	if (ending && fscanf(ending, "%d", &end) != 1)
		return 98;
	if (end < 0) {
		signal(-end, SIG_DFL);
		raise(-end);
	}
	return end;
}
