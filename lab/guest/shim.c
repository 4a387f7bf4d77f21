/* Stands in the place of zfs, zpool and ssh on a node: notes each start, then becomes the real program.
 *
 * While /run/lab/audit.log exists, each start appends one line with a single write:
 *   monotonic-nanoseconds TAB pid TAB parent-pid TAB name TAB argument TAB argument ...
 * in which backslash, tab and newline of an argument are written \\, \t and \n.
 *
 * While /run/lab/fault exists it holds one line, "before N kill WORD", "after N kill WORD", "before N power"
 * or "after N power": at the N-th start (counted from 1 over all three programs, from when the file was
 * written: the counter is /run/lab/fault.count) every process whose command line holds WORD gets SIGKILL, or
 * the node restarts as if its power had failed, before the real program starts or after it has ended. How many
 * got it is written to /run/lab/fault.killed.
 *
 * Built once a program with -DREAL="/the/moved/program" -DNAME="zfs".
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AUDIT_LOG "/run/lab/audit.log"
#define FAULT "/run/lab/fault"
#define FAULT_COUNT "/run/lab/fault.count"
#define FAULT_KILLED "/run/lab/fault.killed"

static void note_start(int count, char **arguments)
{
    int log = open(AUDIT_LOG, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log < 0)
        return;
    size_t size = 128;
    for (int i = 0; i < count; i++)
        size += 2 * strlen(arguments[i]) + 1;
    char *line = malloc(size), *end = line;
    struct timespec now;
    if (!line)
        _exit(125);
    clock_gettime(CLOCK_MONOTONIC, &now);
    end += sprintf(end, "%lld%09ld\t%d\t%d\t" NAME, (long long)now.tv_sec, now.tv_nsec, getpid(), getppid());
    for (int i = 1; i < count; i++) {
        *end++ = '\t';
        for (const char *from = arguments[i]; *from; from++) {
            if (*from == '\\' || *from == '\t' || *from == '\n')
                *end++ = '\\';
            *end++ = *from == '\t' ? 't' : *from == '\n' ? 'n' : *from;
        }
    }
    *end++ = '\n';
    if (write(log, line, end - line) != end - line)
        _exit(125);
    close(log);
    free(line);
}

/* Counts this start; true when it is the N-th and the fault is therefore this process's to cause. */
static int is_struck(int at)
{
    char text[32] = "";
    int file = open(FAULT_COUNT, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || flock(file, LOCK_EX) != 0 || pread(file, text, sizeof text - 1, 0) < 0)
        _exit(125);
    int count = atoi(text) + 1;
    int length = sprintf(text, "%d\n", count);
    if (pwrite(file, text, length, 0) != length)
        _exit(125);
    close(file);
    return count == at;
}

static int kill_matching(const char *word)
{
    int killed = 0;
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        char path[300], command[4096];
        pid_t pid = atoi(entry->d_name);
        if (pid <= 1 || pid == getpid() || !isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = file < 0 ? -1 : read(file, command, sizeof command - 1);
        if (file >= 0)
            close(file);
        for (ssize_t i = 0; i < length; i++)
            if (!command[i])
                command[i] = ' ';
        if (length > 0 && (command[length] = 0, strstr(command, word)))
            killed += kill(pid, SIGKILL) == 0;
    }
    if (processes)
        closedir(processes);
    return killed;
}

static void strike(const char *what, const char *word)
{
    if (strcmp(what, "power") == 0) {
        int trigger = open("/proc/sysrq-trigger", O_WRONLY);
        if (write(trigger, "b", 1) != 1)
            _exit(125);
        pause();
    }
    int killed = kill_matching(word);
    FILE *said = fopen(FAULT_KILLED, "we");
    if (!said || fprintf(said, "%d\n", killed) < 0 || fclose(said) != 0)
        _exit(125);
}

int main(int count, char **arguments)
{
    char when[16] = "", what[16] = "", word[256] = "";
    int at = 0;
    FILE *fault = fopen(FAULT, "re");

    note_start(count, arguments);
    if (!fault || fscanf(fault, "%15s %d %15s %255s", when, &at, what, word) < 3 || !is_struck(at)) {
        execv(REAL, arguments);
        _exit(127);
    }
    fclose(fault);
    if (strcmp(when, "before") == 0) {
        strike(what, word);
        execv(REAL, arguments);
        _exit(127);
    }
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        execv(REAL, arguments);
        _exit(127);
    }
    while (waitpid(child, &status, 0) < 0)
        ;
    strike(what, word);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
