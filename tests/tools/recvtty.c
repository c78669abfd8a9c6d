/* SPDX-License-Identifier: Apache-2.0 */
/* Receives the terminal that a runtime sends to --console-socket, and copies what is written there to standard output. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int receive_fd(int connection) {
    char data[4096], control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(connection, &message, 0) < 0) return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
    strcpy(address.sun_path, argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) return perror("listen"), 1;
    int terminal = receive_fd(accept(listener, NULL, NULL));
    if (terminal < 0) return perror("receive"), 1;
    char buffer[4096];
    ssize_t got;
    /* EIO: the last one who had the other side open has closed it. */
    while ((got = read(terminal, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) != got) return 1;
    return 0;
}
